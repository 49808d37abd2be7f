"""Poison, train, evaluate, scan, cleanse, filter and predict: functions with typed results that print nothing.

Each function takes a `bdclean.engine.trainer.Trainer`, a network and its images, and writes files only to `output`.
"""

from bdclean.tasks.cleansing import cleanse
from bdclean.tasks.evaluation import evaluate
from bdclean.tasks.filtering import filter_images
from bdclean.tasks.poisoning import PoisonedSet, poison
from bdclean.tasks.prediction import Predictions, predict
from bdclean.tasks.scanning import scan
from bdclean.tasks.training import train

__all__ = [
    "PoisonedSet",
    "Predictions",
    "cleanse",
    "evaluate",
    "filter_images",
    "poison",
    "predict",
    "scan",
    "train",
]
