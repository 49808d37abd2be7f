"""The default method: searching for triggers, unlearning them, evaluating the student, and interpolating weights."""

from bdclean.cleansing.scandistill.method import ScanDistill

__all__ = ["ScanDistill"]
