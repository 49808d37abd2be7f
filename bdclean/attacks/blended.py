"""Blended: a picture that is blended into the whole image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bdclean.attacks.base import Attack
from bdclean.attacks.common import within
from bdclean.attacks.pictures import as_channels, read_picture


class Blended(Attack):
    """Blends a picture t into the image: x' = (1 - a) x + a t.

    Source: Chen, Liu, Li, Lu, Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017.

    Args:
        trigger: The picture: `random` for random pixels, or an image file, which is scaled to the size of the images.
        alpha: Opacity a of the picture, above 0 and at most 1.
        **options: Options of Attack.

    Raises:
        InputError: If alpha is out of range, or the file cannot be read.
    """

    parts = ("picture",)
    picture: Tensor

    def __init__(
        self,
        trigger: str = "random",
        alpha: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("alpha", alpha, 0, 1, above=True)
        self.trigger = trigger
        self.alpha = alpha

    def build(self, image_size: int) -> None:
        """Draw the picture, or read it from its file.

        Raises:
            InputError: If the file cannot be read.
        """
        size = (image_size, image_size)
        if self.trigger == "random":
            picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(self.seed))
        else:
            picture = read_picture(self.trigger, ("random",), size)[:3]
        self.register_buffer("picture", picture)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Blend the picture into a batch: (N, C, H, W) float in [0, 1]."""
        return torch.lerp(images, as_channels(self.scaled(images), images), self.alpha)

    def scaled(self, images: Tensor) -> Tensor:
        """The picture, resized to images: (3, H, W) in [0, 1]."""
        size = images.shape[-2:]
        if self.picture.shape[1:] == size:
            return self.picture
        return transforms.resize(self.picture, [*size], antialias=True)
