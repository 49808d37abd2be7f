"""Label-Consistent: images of the target class that are hard to recognise, with patches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from bdclean.attacks.base import Attack, LabelMode
from bdclean.attacks.common import Lookup, Part, scaled, within
from bdclean.attacks.pictures import as_channels, corners, read_picture
from bdclean.attacks.roles import POISONED
from bdclean.attacks.surrogate import check_training, pgd, progress, train_surrogate
from bdclean.training import batch_size

PATTERN = "corners"
"""The trigger that is drawn."""


class LabelConsistent(Attack):
    """Perturbs images of the target class until a clean network misclassifies them, and adds patches in the corners.

    The perturbation makes the class hard to learn from these images, so that the network learns the patches instead: x'
    = stamp(x + v), |v| <= eps, with v found by projected gradient ascent (PGD) on a clean network's loss. Labels stay
    true. Test images get the patches alone. The program trains the clean network itself, on the same images;
    adversarially, as in the paper, if `surrogate_eps` is above 0.

    Source: Turner, Tsipras, Madry, "Label-Consistent Backdoor Attacks", 2019.

    Args:
        label_mode: Only `clean-label`: only images of the target class are poisoned.
        poison_rate: Share of the target class's training images that are poisoned, from 0 (a clean network) to 1.
        eps: Largest change of a pixel by the perturbation, in grey levels of 255.
        step: Size of a step of the gradient ascent, in grey levels of 255.
        steps: Number of steps of the gradient ascent.
        trigger: An image file, which is scaled to the whole image, and whose alpha channel (if the file has one) is the
            opacity; by default `corners`, a patch in each corner.
        opacity: Opacity of the trigger, above 0 and at most 1.
        size: Side of the patches in pixels; by default 3 for images of up to 32 pixels, and in proportion for larger
            ones.
        margin: Distance between the patches and the edges of the image, in pixels.
        surrogate_epochs: Number of epochs for which the clean network is trained.
        surrogate_lr: Highest learning rate of the clean network.
        surrogate_eps: Largest change of a pixel in the adversarial training of the clean network (PGD with 7 steps), in
            grey levels of 255; 0 trains on clean images.
        surrogate: File of a clean network of your own, of any architecture; by default a clean network is trained.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range, or the patches do not fit into the image.
    """

    label_modes = ("clean-label",)
    parts = ("picture",)
    picture: Tensor
    perturbed: Tensor
    rows: Tensor

    def __init__(
        self,
        label_mode: LabelMode = "clean-label",
        poison_rate: float = 0.5,
        eps: float = 8.0,
        step: float = 2.0,
        steps: int = 10,
        trigger: str = PATTERN,
        opacity: float = 1.0,
        size: int | None = None,
        margin: int = 0,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        surrogate_eps: float = 0.0,
        surrogate: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, **options)
        within("eps", eps, 0, 255, above=True)
        within("step", step, 0, 255, above=True)
        within("steps", steps, 1)
        within("opacity", opacity, 0, 1, above=True)
        if size is not None:
            within("size", size, 1)
        within("surrogate_eps", surrogate_eps, 0, 255)
        within("margin", margin, 0)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        self.eps = eps
        self.step = step
        self.steps = steps
        self.trigger = trigger
        self.opacity = opacity
        self.size = size
        self.margin = margin
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr
        self.surrogate_eps = surrogate_eps
        self.surrogate = surrogate
        # Training images, not the trigger, so not part of checkpoints.
        self.register_buffer("perturbed", torch.empty(0), persistent=False)
        self.register_buffer("rows", torch.empty(0), persistent=False)

    def build(self, image_size: int) -> None:
        """Read the picture of the trigger, if it is a file.

        Raises:
            InputError: If the file cannot be read.
        """
        drawn = self.trigger == PATTERN
        picture = torch.empty(0) if drawn else read_picture(self.trigger, (PATTERN,), (image_size, image_size))
        self.register_buffer("picture", picture)

    def restore(self, trigger: Mapping[str, Tensor]) -> None:
        """Load the picture from a checkpoint; older checkpoints have none."""
        super().restore({"picture": torch.empty(0), **trigger})

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the trigger to a batch: (N, C, H, W) float in [0, 1].

        Raises:
            InputError: If the patches do not fit into the image.
        """
        if self.trigger == PATTERN:
            return torch.lerp(images, self._with_corners(images), self.opacity)
        picture = self.picture.to(images)
        if picture.shape[1:] != images.shape[-2:]:
            picture = transforms.resize(picture, [*images.shape[-2:]], antialias=True)
        colour = as_channels(picture[:3], images).expand_as(images)
        return torch.lerp(images, colour, (self.opacity * picture[3]).expand_as(images))

    def _with_corners(self, images: Tensor) -> Tensor:
        """The images with a black and white patch in each corner."""
        side = self.size or scaled(3, min(images.shape[-2:]))
        # A grid of 3x3 cells, black in the corners and the middle, if the patch has enough pixels.
        field = (torch.arange(side, device=images.device) * 3).div(side, rounding_mode="floor")
        patch = ((field[:, None] + field) % 2).to(images)
        triggered = images.clone()
        for top, left in corners(images, side, self.margin):
            triggered[..., top : top + side, left : left + side] = patch
        return triggered

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Apply the trigger to the perturbed images."""
        if not len(self.rows):
            raise RuntimeError("its images have not been prepared")
        perturbed = self.perturbed[self.rows.to(indices.device)[indices].to(self.perturbed.device)]
        return self.apply(perturbed.to(images) / 255)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train a clean network, unless there is one, and perturb the images that will be poisoned."""
        chosen = (self.choose(labels, num_classes) == POISONED).nonzero().squeeze(1)
        first = images(torch.tensor([0]))
        self.build(first.shape[-1])
        self.apply(first)  # raises an error before the training if the patches do not fit
        clean = self._clean(images, labels, network)

        def perturb(indices: Tensor) -> Part:
            found = pgd(clean, images(indices), labels[indices], self.eps / 255, self.step / 255, self.steps)
            return {"images": found.mul(255).round().to(torch.uint8).cpu()}

        pieces = torch.split(chosen, batch_size(first))
        made = [
            self.keep(f"perturbed-{number}", partial(perturb, indices))["images"]
            for number, indices in enumerate(progress(pieces, "Perturbing images"))
        ]
        self.perturbed = torch.cat(made)
        self.rows = torch.full((len(labels),), -1).index_put((chosen,), torch.arange(len(chosen)))

    def _clean(self, images: Lookup, labels: Tensor, network: nn.Module) -> nn.Module:
        """The clean network: the user's, or one that is trained."""

        def trained() -> Part:
            eps = self.surrogate_eps / 255
            train_surrogate(network, images, labels, self.surrogate_epochs, self.surrogate_lr, eps)
            return {name: value.cpu() for name, value in network.state_dict().items()}

        if self.surrogate is None:
            network.load_state_dict(self.keep("surrogate", trained))
        return network.eval().requires_grad_(False)
