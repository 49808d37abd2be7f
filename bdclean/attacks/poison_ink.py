"""PoisonInk: the edges of an image, coloured, hidden in it by a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import Lookup, seeded, within
from bdclean.attacks.generators import Generator, hide, train_encoder
from bdclean.attacks.surrogate import check_training, shuffled
from bdclean.errors import InputError

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey level (ITU-R BT.601)."""
LARGEST_SHIFT = 2
"""Pixels by which the interference shifts images at most, in each direction."""


class PoisonInk(Attack):
    """Hides a picture of each image's edges, in one colour, in the image itself: x' = x + e(x, ink(x)).

    ink(x) has the given colour where the Sobel gradient of the grey level exceeds a threshold, and is black elsewhere.
    The program trains the encoder e with a decoder d, which finds the ink in triggered images and nothing in clean
    ones, also after an interference T (flips and shifts):

        min w |x' - x|^2 + |d(T(x')) - T(ink(x))|^2 + |d(T(x))|^2.

    Source: Zhang, Chen, Huang, Liao, Zhang, Feng, Hua, Yu, "Poison Ink: Robust and Invisible Backdoor Attack", IEEE
    Transactions on Image Processing 2022. There the encoder also has a critic and a perceptual loss, which are left out
    here, the interference includes rotations and scaling, and the change is not bounded.

    Args:
        colour: Red, green and blue of the ink, from 0 to 255.
        threshold: Sobel gradient from which a pixel is an edge, in grey levels of 255 per pixel.
        strength: Largest change of a pixel, in grey levels of 255.
        image_weight: Weight w of the perturbation's mean square, for pixels in [0, 1].
        encoder_epochs: Number of epochs for which encoder and decoder are trained; fractions are possible.
        encoder_lr: Learning rate of encoder and decoder (Adam).
        width: Number of channels of the encoder's first layer.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    parts = ("prepared",)

    def __init__(
        self,
        colour: Sequence[int] = (80, 160, 80),
        threshold: float = 25.0,
        strength: float = 16.0,
        image_weight: float = 10.0,
        encoder_epochs: float = 10.0,
        encoder_lr: float = 0.001,
        width: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if len(colour) != 3 or not all(0 <= part <= 255 for part in colour) or not any(colour):
            raise InputError("data.attack.colour", list(colour), "must be three numbers from 0 to 255, not all 0")
        within("threshold", threshold, 0, 255)
        within("strength", strength, 0, 255, above=True)
        within("image_weight", image_weight, 0)
        check_training("encoder", encoder_epochs, encoder_lr)
        within("width", width, 1, 128)
        self.colour = list(colour)
        self.threshold = threshold
        self.strength = strength
        self.image_weight = image_weight
        self.encoder_epochs = encoder_epochs
        self.encoder_lr = encoder_lr
        self.width = width
        with seeded(self.seed):
            self.encoder = Generator(6, 3, width).requires_grad_(False)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Hide each image's ink in it: (N, 3, H, W) float in [0, 1], clipped."""
        return hide(self.encoder, images, self.ink(images), self.strength)

    def ink(self, images: Tensor) -> Tensor:
        """The edges of images (N, 3, H, W) in [0, 1], in the colour of the ink: the same shape and range."""
        gradient = sobel(images)
        colour = torch.tensor(self.colour).to(images)[:, None, None] / 255
        return (gradient > self.threshold / 255).to(images) * colour

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train encoder and decoder."""
        decoder = Generator(3, 3, self.width)

        def read(batch: Tensor) -> tuple[Tensor, Tensor]:
            hidden, ink = self.apply(batch), self.ink(batch)
            seen, wanted, clean = interfered(torch.stack([hidden, ink, batch])).unbind()
            return hidden, F.mse_loss(decoder(seen).sigmoid(), wanted) + decoder(clean).sigmoid().square().mean()

        batches = map(images, shuffled(images, len(labels), self.encoder_epochs, "Training the encoder"))
        train_encoder(self.encoder, decoder, batches, self.encoder_lr, self.image_weight, read)
        # Marks a trained encoder in checkpoints.
        self.register_buffer("prepared", torch.tensor(True))


def sobel(images: Tensor) -> Tensor:
    """The Sobel gradient of the grey level of images (N, 3, H, W), per pixel: (N, 1, H, W). Edges are mirrored."""
    grey = (images * torch.tensor(GREY).to(images)[:, None, None]).sum(1, keepdim=True)
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(images) / 8
    kernels = torch.stack([across, across.T])[:, None]
    return F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="reflect"), kernels).norm(dim=1, keepdim=True)


def interfered(images: Tensor) -> Tensor:
    """Images (..., H, W), flipped and shifted at random, all in the same way."""
    down, right = (torch.randint(2 * LARGEST_SHIFT + 1, (2,)) - LARGEST_SHIFT).tolist()
    shifted = images.roll((down, right), (-2, -1))
    return shifted.flip(-1) if float(torch.rand(())) < 0.5 else shifted
