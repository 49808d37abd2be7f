"""Trigger inversion with a perturbation of all pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bdclean.perturbations import add
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.search import Inversion


class DenseInversion(Inversion):
    """Trigger inversion with a perturbation that is added to all pixels, of bounded Euclidean norm.

    As in `Inversion`.

    Args:
        sizes: Norms, in pixel values.
        steps: As in Inversion.
        batch_size: As in Inversion.
    """

    least = 0.45

    def __init__(
        self,
        sizes: Sequence[float] = (2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18),
        steps: int = 4,
        batch_size: int = 16,
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        return goal.images.new_zeros(len(goal), *goal.images.shape[1:])

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return add(images, parameters)
