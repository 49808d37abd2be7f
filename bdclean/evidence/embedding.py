"""Penultimate features of clean and triggered images in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn

from bdclean.evidence.tsne import tsne
from bdclean.networks import last_layer, penultimate
from bdclean.training import batch_size, pieces


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
        near_target: Share of triggered images, in percent, whose nearest clean image is predicted as their target.
    """

    points: Tensor
    kinds: Tensor
    near_target: float


@torch.no_grad()
def embed(network: nn.Module, clean: Tensor, triggered: Tensor, targets: Tensor) -> Embedding | None:
    """Embed the features of images by t-SNE.

    Args:
        network: Maps images to logits, in eval mode.
        clean: (N, 3, H, W) in [0, 1].
        triggered: (M, 3, H, W) in [0, 1].
        targets: (M,) target classes of the triggered images.

    Returns:
        The embedding; None if the network's last layer is neither linear nor convolutional.
    """
    head = last_layer(network, clean.shape[-1])
    if head is None:
        return None
    parts = [penultimate(network, head, part) for part in pieces(torch.cat([clean, triggered]), batch_size(clean))]
    features, predicted = (torch.cat(part).float().cpu() for part in zip(*parts, strict=True))
    predicted, targets = predicted.argmax(1)[: len(clean)], targets.cpu()
    nearest = torch.cdist(features[len(clean) :], features[: len(clean)]).argmin(1)
    kinds = torch.where(torch.isin(predicted, targets), Kind.CLEAN_OF_TARGET, Kind.CLEAN)
    return Embedding(
        tsne(features),
        torch.cat([kinds, torch.full((len(triggered),), Kind.TRIGGERED)]),
        round(100 * float((predicted[nearest] == targets).float().mean()), 2),
    )
