"""Adaptive-Patch: one faint patch in training images, some with true labels, and two strong patches in test images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdclean.attacks.base import Attack
from bdclean.attacks.common import scaled, within
from bdclean.attacks.pictures import as_channels, corners


class AdaptivePatch(Attack):
    """Puts one of four faint patches on few training images, and two stronger ones on test images.

    x' = (1 - a) x + a p on each patch p. A larger number of further images carry a patch and keep their labels, so that
    poisoned and clean images do not separate in the network's features. The paper's patches are logos, each with its
    own opacity; here they are a checkerboard, a ring, a cross and random pixels, each near another corner.

    Source: Qi, Xie, Li, Mahloujifar, Mittal, "Revisiting the Assumption of Latent Separability for Backdoor Defenses",
    ICLR 2023.

    Args:
        poison_rate: Share of the training images that are poisoned, from 0 (a clean network) to 1.
        cover_rate: Share of the training images that carry a patch with their true labels.
        size: Side of each patch in pixels; by default 6 for images of up to 32 pixels, and in proportion for larger
            ones.
        margin: Distance between the patches and the edges of the image, in pixels.
        training_opacity: Opacity a of the patches in training images, from 0 to 1.
        opacity: Opacity a of the patches in test images, from 0 to 1.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range, or the patches do not fit into the image.
    """

    label_modes = ("all-to-one", "all-to-all")
    cover_option = "cover_rate"

    def __init__(
        self,
        poison_rate: float = 0.003,
        cover_rate: float = 0.006,
        size: int | None = None,
        margin: int = 1,
        training_opacity: float = 0.5,
        opacity: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(poison_rate=poison_rate, **options)
        within("cover_rate", cover_rate, 0, 1)
        if size is not None:
            within("size", size, 3)
        within("margin", margin, 0)
        within("training_opacity", training_opacity, 0, 1, above=True)
        within("opacity", opacity, 0, 1, above=True)
        self.cover_rate = cover_rate
        self.cover_ratio = self.per_poisoned(cover_rate)
        self.size = size
        self.margin = margin
        self.training_opacity = training_opacity
        self.opacity = opacity

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the first two patches to a batch: (N, C, H, W) float in [0, 1]."""
        colours, places = self.patches(images)
        weights = self.opacity * places[:2].sum(0)
        return torch.lerp(images, as_channels(colours[:2].sum(0), images).expand_as(images), weights.to(images))

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Apply one patch to each image; the choice is fixed for each image."""
        colours, places = self.patches(images)
        which = self.draws(indices, 4).argmax(1)
        colours = torch.stack([as_channels(colour, images) for colour in colours])
        weights = self.training_opacity * places[which].to(images)
        return torch.lerp(images, colours[which.to(images.device)], weights.expand_as(images))

    def patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The four patches, each in an empty image: (4, 3, H, W), and their masks: (4, 1, H, W), 0 or 1."""
        height, width = images.shape[-2:]
        side = self.size or scaled(6, min(height, width))
        x = (2 * torch.arange(side) - side + 1) / side
        radius = torch.hypot(x[:, None], x)
        cells = (torch.arange(side) * 3).div(side, rounding_mode="floor")
        empty, full = torch.zeros(side, side), torch.ones(side, side)
        ring, cross = ((radius - 0.65).abs() < 0.25).float(), ((x[:, None].abs() < 0.25) | (x.abs() < 0.25)).float()
        drawings = torch.stack(
            [
                ((cells[:, None] + cells) % 2).float().expand(3, -1, -1),
                torch.stack([full, ring, empty]),
                torch.stack([cross, empty, full]),
                torch.rand(3, side, side, generator=torch.Generator().manual_seed(self.seed)),
            ]
        )
        colours, places = torch.zeros(4, 3, height, width), torch.zeros(4, 1, height, width)
        for number, (top, left) in enumerate(corners(images, side, self.margin)):
            region = (slice(None), slice(top, top + side), slice(left, left + side))
            colours[number][region] = drawings[number]
            places[number][region] = 1
        return colours, places
