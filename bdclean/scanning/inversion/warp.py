"""Trigger inversion with a smooth warp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdclean.perturbations import CONTROLS, shift_radius, warp
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.search import Inversion


class WarpInversion(Inversion):
    """Trigger inversion with a smooth warp.

    As in `Inversion`.

    Args:
        sizes: How far it shifts, root mean square, in pixels.
        steps: As in Inversion.
        batch_size: As in Inversion.
    """

    least = 0.3

    def __init__(
        self, sizes: Sequence[float] = (2.0, 1.5, 1.0, 0.7, 0.5, 0.35), steps: int = 4, batch_size: int = 16
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        # Without a warp, the same gradient shifts each control point.
        return 0.01 * torch.randn(len(goal), 2, CONTROLS, CONTROLS).to(goal.images)

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, parameters)

    def bound(self, size: float, side: int) -> float:
        # Shifts are in shares of the side.
        return shift_radius(size)
