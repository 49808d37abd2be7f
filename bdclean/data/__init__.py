"""Where images come from, how they are poisoned, and the loaders of an experiment."""

from bdclean.data.module import PoisonDataModule

__all__ = ["PoisonDataModule"]
