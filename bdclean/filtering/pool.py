"""Scores of a pool of images: how each image's features differ from those of other images with its prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from bdclean.errors import InputError
from bdclean.filtering.base import Context, PredictedBatch, Score
from bdclean.networks import last_layer, penultimate


class PoolScore(Score):
    """A score from the suspect's penultimate features, the inputs of its last layer, of images with one prediction."""

    compares_images = True

    def scores(self, context: Context, batches: Iterable[PredictedBatch]) -> Tensor:
        head = last_layer(context.suspect, context.overlays.shape[-1])
        if head is None:
            raise InputError("score", None, "needs the inputs of a last linear or convolutional layer; there is none")
        found, predicted = [], []
        for batch in batches:
            features, _ = penultimate(context.suspect, head, batch.images)
            found.append(features.float().cpu())
            predicted.append(batch.predicted.cpu())
        return self.score(torch.cat(found), torch.cat(predicted))

    @abstractmethod
    def score(self, features: Tensor, predicted: Tensor) -> Tensor:
        """Score all images of a pool.

        Args:
            features: (N, D) penultimate features.
            predicted: (N,) the classes that the suspect predicts.

        Returns:
            (N,).
        """


def groups(predicted: Tensor, fewest: int) -> Iterator[Tensor]:
    """Indices of the images of each predicted class that has at least a given number of images."""
    for number in torch.unique(predicted):
        members = (predicted == number).nonzero()[:, 0]
        if len(members) >= fewest:
            yield members
