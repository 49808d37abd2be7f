"""Penultimate features of clean and triggered images in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn

from bdclean.evidence.tsne import tsne
from bdclean.networks import last_layer, penultimate
from bdclean.training import batch_size, pieces

NEIGHBOURS = 5
"""Number of neighbours of an image that its features are compared with."""


class Kind(IntEnum):
    """Kinds of images."""

    CLEAN = 0
    CLEAN_OF_TARGET = 1
    TRIGGERED = 2


@dataclass(frozen=True)
class Embedding:
    """Features in a plane.

    Attributes:
        points: (N, 2).
        kinds: (N,) the `Kind` of each image; clean images belong to a target if the network predicts one.
        kept: How far triggered images keep the features of their class, in percent, as in `at_home`.
        without: How far the same images, without the trigger, keep the features of their class, in percent.
    """

    points: Tensor
    kinds: Tensor
    kept: float
    without: float


@torch.no_grad()
def embed(network: nn.Module, clean: Tensor, originals: Tensor, triggered: Tensor, targets: Tensor) -> Embedding | None:
    """Embed the features of clean and triggered images by t-SNE.

    Args:
        network: Maps images to logits, in eval mode.
        clean: (N, 3, H, W) in [0, 1].
        originals: (M, 3, H, W) in [0, 1], the triggered images without the trigger; they are not embedded.
        triggered: (M, 3, H, W) in [0, 1].
        targets: (M,) target classes of the triggered images.

    Returns:
        The embedding; None if the network's last layer is neither linear nor convolutional.
    """
    head = last_layer(network, clean.shape[-1])
    if head is None:
        return None
    images = torch.cat([clean, triggered, originals])
    parts = [penultimate(network, head, part) for part in pieces(images, batch_size(images))]
    features, logits = (torch.cat(part).float().cpu() for part in zip(*parts, strict=True))
    sizes = [len(clean), len(triggered), len(originals)]
    predicted, _, own = torch.split(logits.argmax(1), sizes)
    pool, stamped, plain = torch.split(features, sizes)
    kinds = torch.where(torch.isin(predicted, targets.cpu()), Kind.CLEAN_OF_TARGET, Kind.CLEAN)
    return Embedding(
        tsne(torch.cat([pool, stamped])),
        torch.cat([kinds, torch.full((len(triggered),), Kind.TRIGGERED)]),
        *(at_home(some, own, pool, predicted) for some in (stamped, plain)),
    )


def at_home(features: Tensor, own: Tensor, pool: Tensor, predicted: Tensor) -> float:
    """The share of clean images of an image's own class among the image's nearest neighbours, in percent.

    The neighbours are clean images and the other images; images in a cluster of their own, or in that of another class,
    have a share of 0.

    Args:
        features: (M, D) features of the images.
        own: (M,) their own classes.
        pool: (N, D) features of clean images.
        predicted: (N,) the classes of the clean images.
    """
    others = torch.cdist(features, features).fill_diagonal_(torch.inf)
    distances = torch.cat([torch.cdist(features, pool), others], dim=1)
    nearest = distances.topk(min(NEIGHBOURS, distances.shape[1] - 1), largest=False).indices
    same = torch.cat([predicted == own[:, None], torch.zeros_like(others, dtype=torch.bool)], dim=1)
    return round(100 * float(same.gather(1, nearest).float().mean()), 2)
