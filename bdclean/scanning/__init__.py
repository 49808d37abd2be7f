"""Detectors of backdoors: a new one is imported here and named in `DETECTORS`, and is everywhere at once."""

from bdclean.scanning.base import Detector, Finding, p_value, taken
from bdclean.scanning.inversion import DenseInversion, SparseInversion, WarpInversion
from bdclean.scanning.margin import MaximumMargin

DETECTORS = (MaximumMargin, DenseInversion, SparseInversion, WarpInversion)

__all__ = [
    "DETECTORS",
    "DenseInversion",
    "Detector",
    "Finding",
    "MaximumMargin",
    "SparseInversion",
    "WarpInversion",
    "p_value",
    "taken",
]
