"""Scores of a pool of images: how each image's features differ from those of other images with its prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bdclean.errors import InputError
from bdclean.filtering.base import Context, PredictedBatch, Score
from bdclean.networks import find_stages


class PoolScore(Score):
    """A score from the suspect's penultimate features, the inputs of its last layer, of images with one prediction."""

    compares_images = True

    def scores(self, context: Context, batches: Iterable[PredictedBatch]) -> Tensor:
        head = last_layer(context.suspect, context.overlays.shape[-1])
        found, predicted = [], []
        for batch in batches:
            found.append(penultimate(context.suspect, head, batch.images).float().cpu())
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


def last_layer(network: nn.Module, image_size: int) -> nn.Module:
    """The layer of a network that outputs the logits.

    Raises:
        InputError: If it is neither linear nor convolutional.
    """
    layers = find_stages(network, image_size)
    if not layers or not isinstance(layers[-1].module, nn.Linear | nn.Conv2d):
        raise InputError("score", None, "needs the inputs of a last linear or convolutional layer; there is none")
    return layers[-1].module


def penultimate(network: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    """The inputs of a network's last layer, (N, D): the mean over positions if they have several."""
    with _inputs(head) as found:
        network(images)
    (features,) = found
    if isinstance(head, nn.Conv2d):
        return features.flatten(2).mean(2)
    return features if features.ndim == 2 else features.flatten(1, -2).mean(1)


@contextmanager
def _inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets the input of each call of a module in this context."""
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        hook.remove()


def groups(predicted: Tensor, fewest: int) -> Iterator[Tensor]:
    """Indices of the images of each predicted class that has at least a given number of images."""
    for number in torch.unique(predicted):
        members = (predicted == number).nonzero()[:, 0]
        if len(members) >= fewest:
            yield members
