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
    format_p_value,
    is_significant,
    p_value,
    trigger_asr,
)
from bdclean.scanning.budget import Budget
from bdclean.scanning.chosen import CANDIDATES, CONTROLS, choose, find_among
from bdclean.scanning.inversion import DenseInversion, Inversion, PatchInversion, SparseInversion, WarpInversion
from bdclean.scanning.margin import MaximumMargin
from bdclean.scanning.screening import screening_passes

DETECTORS = (MaximumMargin, DenseInversion, SparseInversion, WarpInversion, PatchInversion)
"""In order of preference for equal p-values: even in clean networks, some patch flips images to a class."""
USEFUL: tuple[type[Detector], ...] = (PatchInversion, DenseInversion, SparseInversion, WarpInversion, MaximumMargin)
"""The order in which detectors run if time is limited: those that found most backdoors first."""


def scan(
    network: Network,
    images: Tensor,
    num_classes: int,
    detectors: Sequence[Detector] | None = None,
    budget: Budget | None = None,
) -> list[Finding]:
    """Run detectors on a network, over all classes, or over a few if it has more than `MANY`.

    Args:
        network: The network to scan.
        images: (N, 3, H, W) in [0, 1], on the network's device.
        num_classes: Number of classes.
        detectors: The detectors to run; by default all.
        budget: A time limit; with it, detectors run in the order of `USEFUL`, and those that do not fit are left out.

    Returns:
        One finding per detector that was run.
    """
    used = [kind() for kind in DETECTORS] if detectors is None else list(detectors)
    chosen = None
    if num_classes > MANY:
        if budget is not None:
            budget.allows("screening", screening_passes(images.shape[-1]), required=True)
        chosen = choose(network, images, num_classes)
    findings: dict[Detector, Finding] = {}
    for detector in bar(used if budget is None else sorted(used, key=_rank), "scan"):
        cost = detector.passes * searched(num_classes)
        if budget is None or budget.allows(type(detector).__name__, cost, required=not findings):
            findings[detector] = (
                detector.find(network, images, num_classes)
                if chosen is None
                else find_among(detector, network, images, num_classes, chosen)
            )
    return [findings[detector] for detector in used if detector in findings]


def detectors_of(findings: Sequence[Finding]) -> list[Detector]:
    """The detectors with the names of some findings, with their default options."""
    names = [finding.detector for finding in findings]
    return [one for kind in DETECTORS if type(one := kind()).__name__ in names]


def scan_passes(num_classes: int, image_size: int, detectors: Sequence[Detector] | None = None) -> int:
    """Approximate cost of a scan, in forward passes of one image; by default of all detectors.

    Args:
        num_classes: Number of classes.
        image_size: Side of the images, in pixels.
        detectors: The detectors to run.
    """
    used = [kind() for kind in DETECTORS] if detectors is None else detectors
    screening = screening_passes(image_size) if num_classes > MANY else 0
    return screening + searched(num_classes) * sum(one.passes for one in used)


def searched(num_classes: int) -> int:
    """Number of classes that a scan searches."""
    return num_classes if num_classes <= MANY else CANDIDATES + CONTROLS


def _rank(detector: Detector) -> int:
    return USEFUL.index(type(detector)) if type(detector) in USEFUL else len(USEFUL)


__all__ = [
    "ALPHA",
    "DETECTORS",
    "FEWEST",
    "MANY",
    "SCANNED",
    "USEFUL",
    "Budget",
    "DenseInversion",
    "Detector",
    "Finding",
    "Inversion",
    "MaximumMargin",
    "Network",
    "PatchInversion",
    "SparseInversion",
    "WarpInversion",
    "detectors_of",
    "format_p_value",
    "is_significant",
    "p_value",
    "scan",
    "scan_passes",
    "searched",
    "trigger_asr",
]
