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
from bdclean.scanning.crops import crops, for_whole_images, passes_for_crops
from bdclean.scanning.inversion import DenseInversion, Inversion, PatchInversion, SparseInversion, WarpInversion
from bdclean.scanning.margin import MaximumMargin
from bdclean.scanning.screening import SCREENING_PASSES

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

    Of large images, detectors score the central quarter, if the network classifies crops about as whole images.

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
    side = images.shape[-1]
    cropped = crops(network, images) if any(one.takes_crops for one in used) else None
    chosen = None
    if num_classes > MANY:
        if budget is not None:
            budget.allows("screening", passes_for_crops(SCREENING_PASSES, side), required=True)
        chosen = choose(network, images if cropped is None else cropped, num_classes)
    findings: dict[Detector, Finding] = {}
    for detector in bar(used if budget is None else sorted(used, key=_rank), "scan"):
        cost = _passes(detector, num_classes, side)
        if budget is None or budget.allows(type(detector).__name__, cost, required=not findings):
            scored = cropped if cropped is not None and detector.takes_crops else images
            finding = (
                detector.find(network, scored, num_classes)
                if chosen is None
                else find_among(detector, network, scored, num_classes, chosen)
            )
            if scored is not images:
                finding = for_whole_images(finding, detector, network, images, num_classes)
            findings[detector] = finding
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
    screening = passes_for_crops(SCREENING_PASSES, image_size) if num_classes > MANY else 0
    return round(screening + sum(_passes(one, num_classes, image_size) for one in used))


def searched(num_classes: int) -> int:
    """Number of classes that a scan searches."""
    return num_classes if num_classes <= MANY else CANDIDATES + CONTROLS


def _passes(detector: Detector, num_classes: int, image_size: int) -> float:
    """The cost of a detector, in forward passes of one image."""
    passes = detector.passes * searched(num_classes)
    return passes_for_crops(passes, image_size) if detector.takes_crops else passes


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
