"""Blended: a whole picture, mixed into the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bdclean.attacks.base import Attack, LabelMode, within
from bdclean.attacks.pictures import as_channels, read_picture


class Blended(Attack):
    """Mixes a picture t into the image: x' = (1 - a) x + a t.

    Source: Chen, Liu, Li, Lu, Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017.

    Args:
        target_class: Class that triggered images shall get (all-to-one, clean-label).
        label_mode: `all-to-one`: every triggered image gets the target class; `all-to-all`: class y becomes y + 1;
            `clean-label`: only images of the target class are poisoned.
        poison_rate: Share of the training images that are poisoned, from 0 (a clean network) to 1; in the mode
            `clean-label` the share of the target class's images.
        seed: Fixes which training images are poisoned, and the pixels of the trigger `random`.
        trigger: `random`, a picture of random pixels, or an image file, which is scaled to the images' size.
        alpha: Share of the picture in the mixture, above 0 and at most 1.

    Raises:
        InputError: If alpha is no such share, or the file cannot be read.
    """

    picture: Tensor | None

    def __init__(
        self,
        target_class: int = 0,
        label_mode: LabelMode = "all-to-one",
        poison_rate: float = 0.1,
        seed: int = 0,
        trigger: str = "random",
        alpha: float = 0.2,
    ) -> None:
        super().__init__(target_class, label_mode, poison_rate, seed)
        within("alpha", alpha, 0, 1, above=True)
        self.trigger = trigger
        self.alpha = alpha
        self.register_buffer("picture", None)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Mix the picture into a batch: (N, C, H, W) float in [0, 1]."""
        return torch.lerp(images, as_channels(self.drawn(images), images), self.alpha)

    def drawn(self, images: Tensor) -> Tensor:
        """The picture, (3, H, W) in [0, 1], made for the first images it is asked for."""
        size = (images.shape[-2], images.shape[-1])
        if self.picture is None:
            if self.trigger == "random":
                self.picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(self.seed))
            else:
                self.picture = read_picture(self.trigger, ("random",), size)[:3]
        if self.picture.shape[1:] != size:
            return transforms.resize(self.picture, [*size], antialias=True)
        return self.picture
