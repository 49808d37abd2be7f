"""Detectors of backdoors: a new one is imported here and named in `DETECTORS`, and is everywhere at once."""

from bdclean.scanning.base import ALPHA, Detector, Finding, p_value, shown, stands_out, taken
from bdclean.scanning.inversion import DenseInversion, Inversion, SparseInversion, WarpInversion
from bdclean.scanning.margin import MaximumMargin

DETECTORS = (MaximumMargin, DenseInversion, SparseInversion, WarpInversion)

__all__ = [
    "ALPHA",
    "DETECTORS",
    "DenseInversion",
    "Detector",
    "Finding",
    "Inversion",
    "MaximumMargin",
    "SparseInversion",
    "WarpInversion",
    "p_value",
    "shown",
    "stands_out",
    "taken",
]
