"""Sources of images, poisoning, and the data loaders of an experiment."""

from bdclean.data.module import PoisonDataModule

__all__ = ["PoisonDataModule"]
