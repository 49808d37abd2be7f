"""Detectors of backdoors: a new one is imported here and named in `DETECTORS`, and is everywhere at once."""

from collections.abc import Callable, Sequence

from torch import Tensor

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
    begin: Callable[[str], object] = str,
) -> list[Finding]:
    """What each of some detectors says of a network: of all its classes, or of some if it has more than `MANY`.

    Args:
        network: As in `Detector.find`.
        images: As in `Detector.find`.
        num_classes: As in `Detector.find`.
        detectors: The detectors; by default each that there is.
        begin: Called with the name of each step when it begins.
    """
    used = [kind() for kind in DETECTORS] if detectors is None else detectors
    chosen = None
    if num_classes > MANY:
        begin("screen")
        chosen = choose(network, images, num_classes)
    findings = []
    for detector in used:
        begin(type(detector).__name__)
        if chosen is None:
            findings.append(detector.find(network, images, num_classes))
        else:
            findings.append(find_among(detector, network, images, num_classes, chosen))
    return findings


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
