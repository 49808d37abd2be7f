"""Cleansing methods, one file each: a new one is imported here and named in `__all__`, and is everywhere at once."""

from bdclean.cleansing.base import Cleanser
from bdclean.cleansing.distill import DistillCleanseModule, StrongDistillCleanseModule

__all__ = ["Cleanser", "DistillCleanseModule", "StrongDistillCleanseModule"]
