"""Detectors of backdoors. Import a new detector here and add it to `DETECTORS`: all commands then use it."""

from collections.abc import Sequence

from torch import Tensor

from bdclean.progress import bar
from bdclean.scanning.base import (
    ALPHA,
    FEWEST,
    MANY,
    SCANNED,
    Detector,
    Finding,
    Network,
    p_value,
    shown,
    stands_out,
    taken,
)
from bdclean.scanning.chosen import choose, find_among
from bdclean.scanning.inversion import DenseInversion, Inversion, PatchInversion, SparseInversion, WarpInversion
from bdclean.scanning.margin import MaximumMargin

DETECTORS = (MaximumMargin, DenseInversion, SparseInversion, WarpInversion, PatchInversion)
"""In order of preference for equal p-values: even in clean networks, some patch flips images to a class."""


def scan(
    network: Network,
    images: Tensor,
    num_classes: int,
    detectors: Sequence[Detector] | None = None,
) -> list[Finding]:
    """Run detectors on a network, over all classes, or over a few if it has more than `MANY`.

    Args:
        network: The network to scan.
        images: (N, 3, H, W) in [0, 1], on the network's device.
        num_classes: Number of classes.
        detectors: The detectors to run; by default all.

    Returns:
        One finding per detector.
    """
    used = [kind() for kind in DETECTORS] if detectors is None else detectors
    chosen = choose(network, images, num_classes) if num_classes > MANY else None
    return [
        detector.find(network, images, num_classes)
        if chosen is None
        else find_among(detector, network, images, num_classes, chosen)
        for detector in bar(used, "scan")
    ]


__all__ = [
    "ALPHA",
    "DETECTORS",
    "FEWEST",
    "MANY",
    "SCANNED",
    "DenseInversion",
    "Detector",
    "Finding",
    "Inversion",
    "MaximumMargin",
    "Network",
    "PatchInversion",
    "SparseInversion",
    "WarpInversion",
    "p_value",
    "scan",
    "shown",
    "stands_out",
    "taken",
]
