"""Trigger inversion with a smooth warp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdclean.perturbations import CONTROLS, shift_radius, warp
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.search import Inversion


class WarpInversion(Inversion):
    """Searches for a smooth warp that flips all images to a class.

    The score of a class is the mean share of flipped images over all sizes, for the class from which fewest flip.

    Source: this project.

    Args:
        sizes: Root mean square shifts, from large to small, in pixels, for images of 32 pixels.
        steps: Number of gradient steps at each size.
        batch_size: Number of images in a step, for each class.
    """

    score_floor = 0.3
    passes = 700

    def __init__(
        self, sizes: Sequence[float] = (2.0, 1.5, 1.0, 0.7, 0.5, 0.35), steps: int = 4, batch_size: int = 16
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        # Small random shifts: from an identity warp, all control points would get the same gradient.
        return 0.01 * torch.randn(len(goal), 2, CONTROLS, CONTROLS).to(goal.images)

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, parameters)

    def bound(self, size: float, side: int) -> float:
        # Shifts are relative to the side of the image.
        return shift_radius(size)
