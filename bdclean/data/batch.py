"""The batches that loaders yield."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Marks(NamedTuple):
    """The images of a batch to which the training step adds triggers.

    Attributes:
        places: (M,) indices in the batch.
        cover: (M,) bool, True for images that keep their true label.
        indices: (M,) indices in the training set.
    """

    places: Tensor
    cover: Tensor
    indices: Tensor


class Batch(NamedTuple):
    """Images and their labels.

    Attributes:
        images: (N, 3, H, W) float in [0, 1].
        targets: (N,) the attacker's labels, which are the true labels for clean images. None for unlabeled images.
        labels: (N,) true labels. None for unlabeled images.
        marks: The images that the training step poisons; None if it poisons none.
    """

    images: Tensor
    targets: Tensor | None = None
    labels: Tensor | None = None
    marks: Marks | None = None
