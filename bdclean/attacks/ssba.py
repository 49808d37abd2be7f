"""SSBA: a string that a network hides in each image."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import Lookup, seeded, within
from bdclean.attacks.generators import Generator, hide, train_encoder
from bdclean.attacks.surrogate import check_training, shuffled


class SSBA(Attack):
    """Hides a string in each image, as a perturbation that differs between images: x' = x + e(x, bits).

    The program trains the encoder e and a decoder d, which reads the bits back, on the training images with random
    bits: min w |x' - x|^2 + BCE(d(x'), bits). The paper's encoder (StegaStamp) also has a perceptual loss and a critic,
    which are left out here.

    Source: Li, Li, Wu, Li, He, Lyu, "Invisible Backdoor Attack with Sample-Specific Triggers", ICCV 2021.

    Args:
        secret: The string that is hidden.
        bits: Number of bits of the string's digest that are hidden.
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
        secret: str = "bdclean",
        bits: int = 20,
        strength: float = 16.0,
        image_weight: float = 50.0,
        encoder_epochs: float = 10.0,
        encoder_lr: float = 0.001,
        width: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("bits", bits, 1, 256)
        within("strength", strength, 0, 255, above=True)
        within("image_weight", image_weight, 0)
        check_training("encoder", encoder_epochs, encoder_lr)
        within("width", width, 1, 128)
        self.secret = secret
        self.bits = bits
        self.strength = strength
        self.image_weight = image_weight
        self.encoder_epochs = encoder_epochs
        self.encoder_lr = encoder_lr
        self.width = width
        with seeded(self.seed):
            self.encoder = Generator(3 + bits, 3, width).requires_grad_(False)
        digest = int.from_bytes(hashlib.sha256(secret.encode()).digest(), "big")
        self.message = [float(digest >> place & 1) for place in range(bits)]

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Hide the string in a batch: (N, 3, H, W) float in [0, 1]."""
        return self.encode(images, torch.tensor(self.message).to(images).expand(len(images), -1))

    def encode(self, images: Tensor, bits: Tensor) -> Tensor:
        """Hide bits, (N, bits) of 0 and 1, in a batch: (N, 3, H, W) float in [0, 1], clipped."""
        planes = (2 * bits - 1)[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        return hide(self.encoder, images, planes, self.strength)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train encoder and decoder."""
        decoder = _decoder(self.bits, 2 * self.width)

        def read(batch: Tensor) -> tuple[Tensor, Tensor]:
            bits = torch.randint(2, (len(batch), self.bits), device=batch.device).to(batch)
            hidden = self.encode(batch, bits)
            return hidden, F.binary_cross_entropy_with_logits(decoder(hidden), bits)

        batches = map(images, shuffled(images, len(labels), self.encoder_epochs, "Training the encoder"))
        train_encoder(self.encoder, decoder, batches, self.encoder_lr, self.image_weight, read)
        # Marks a trained encoder in checkpoints.
        self.register_buffer("prepared", torch.tensor(True))


def _decoder(bits: int, width: int) -> nn.Module:
    """A network that maps images to logits of the bits."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, width, 1), (width, width, 2), (width, 2 * width, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(min(8, outputs), outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, bits))
