"""Detectors of backdoors: a new one is imported here and named in `DETECTORS`, and is everywhere at once."""

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
"""Of equally sure ones the first is believed: clean networks, too, have patches that take images to a class."""


def scan(
    network: Network,
    images: Tensor,
    num_classes: int,
    detectors: Sequence[Detector] | None = None,
) -> list[Finding]:
    """The findings of some detectors in a network: in all classes, or in a few if it has more than `MANY`.

    Args:
        network: As in `Detector.find`.
        images: As in `Detector.find`.
        num_classes: As in `Detector.find`.
        detectors: The detectors; by default all.
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
