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
        kept: Share of triggered images, in percent, whose nearest clean image has the class that the network predicts
            for the same image without the trigger.
    """

    points: Tensor
    kinds: Tensor
    kept: float


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
    pool, stamped, _ = torch.split(features, sizes)
    nearest = torch.cdist(stamped, pool).argmin(1)
    kinds = torch.where(torch.isin(predicted, targets.cpu()), Kind.CLEAN_OF_TARGET, Kind.CLEAN)
    return Embedding(
        tsne(torch.cat([pool, stamped])),
        torch.cat([kinds, torch.full((len(triggered),), Kind.TRIGGERED)]),
        round(100 * float((predicted[nearest] == own).float().mean()), 2),
    )
