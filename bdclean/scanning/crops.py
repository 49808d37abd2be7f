"""Searching large images on their central quarter, which takes a quarter of the time."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bdclean.scanning.base import Detector, Finding, Network
from bdclean.training import batch_size, pieces

CROPPED_SIDE = 128
"""Smallest side, in pixels, of images that are cropped."""
COMPARED_IMAGES = 64
"""Number of images on which the predictions for crops are compared with those for whole images."""
MIN_AGREEMENT = 1 / 3
"""Smallest share of crops that get the prediction of the whole image. Of photographs of 224 pixels it was .59, with ten
classes and with a thousand."""


def crop(images: Tensor) -> Tensor:
    """The central quarter of images (N, C, H, W)."""
    height, width = images.shape[-2:]
    top, left = height // 4, width // 4
    return images[..., top : top + height // 2, left : left + width // 2]


@torch.no_grad()
def crops(network: Network, images: Tensor) -> Tensor | None:
    """The central quarter of large images; None if the images are small, or the network needs their size.

    Args:
        network: The network to scan.
        images: (N, C, H, W) in [0, 1].
    """
    if images.shape[-1] < CROPPED_SIDE:
        return None
    some = images[:COMPARED_IMAGES]
    parts = pieces(some, batch_size(some))
    try:
        cropped = torch.cat([network(crop(part)) for part in parts])
    except (RuntimeError, ValueError, AssertionError):
        # Networks with position embeddings or a linear layer on feature maps fail in various ways.
        return None
    whole = torch.cat([network(part) for part in parts])
    agreement = (cropped.argmax(1) == whole.argmax(1)).float().mean()
    return crop(images) if cropped.isfinite().all() and agreement >= MIN_AGREEMENT else None


def for_whole_images(
    finding: Finding, detector: Detector, network: Network, images: Tensor, num_classes: int
) -> Finding:
    """A finding on crops, with a trigger for whole images, which is searched for the suspected class only.

    Args:
        finding: The finding on crops.
        detector: The detector that made it.
        network: The network to scan.
        images: (N, C, H, W) in [0, 1], whole.
        num_classes: Number of classes.
    """
    if finding.trigger is None:
        return finding
    with torch.random.fork_rng():
        torch.manual_seed(0)
        suspected = torch.tensor([finding.suspected], device=images.device)
        _, trigger = detector.score_some(network, images, num_classes, suspected)
    return replace(finding, trigger=trigger)


def passes_for_crops(passes: float, image_size: int) -> float:
    """The cost of a search in forward passes of one whole image, if its images of some side can be cropped."""
    return passes / 4 if image_size >= CROPPED_SIDE else passes
