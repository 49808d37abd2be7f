"""What a loader gives for one step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Marks(NamedTuple):
    """The images of a batch that get their triggers in the training step.

    Attributes:
        places: (M,) where in the batch they are.
        cover: (M,) bool, which of them keep their true label.
        indices: (M,) their numbers in the training set.
    """

    places: Tensor
    cover: Tensor
    indices: Tensor


class Batch(NamedTuple):
    """Images, and what goes with them where it is known.

    Attributes:
        images: (N, 3, H, W) float in [0, 1].
        targets: (N,) classes that the attacker wants; without a trigger the true ones. None for unlabeled images.
        labels: (N,) true classes. None for unlabeled images.
        marks: Which images are still to be poisoned, for attacks that act in the training step.
    """

    images: Tensor
    targets: Tensor | None = None
    labels: Tensor | None = None
    marks: Marks | None = None
