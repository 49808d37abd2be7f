"""Trigger inversion with a perturbation of all pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bdclean.perturbations import add
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.search import Inversion


class DenseInversion(Inversion):
    """Searches for a perturbation of all pixels, of bounded Euclidean norm, that flips all images to a class.

    The score of a class is the mean share of flipped images over all sizes, for the class from which fewest flip: the
    smaller a perturbation can be that still works, the higher the score.

    Source: this project, after Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
    Networks", IEEE S&P 2019.

    Args:
        sizes: Largest Euclidean norms of the perturbation, from large to small, in pixel values, for images of 32
            pixels.
        steps: Number of gradient steps at each size.
        batch_size: Number of images in a step, for each class.
    """

    score_floor = 0.45
    passes = 800

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
