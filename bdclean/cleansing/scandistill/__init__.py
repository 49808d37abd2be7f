"""The default method: triggers to unlearn, images to judge by, weights to interpolate, and the training itself."""

from bdclean.cleansing.scandistill.method import ScanDistill

__all__ = ["ScanDistill"]
