"""What users do with networks, as functions with typed results. They print nothing.

All take a `bdclean.engine.trainer.Trainer`, a network and its images, and write files only where an `output` is named.
"""

from bdclean.tasks.cleansing import cleanse
from bdclean.tasks.evaluation import evaluate
from bdclean.tasks.prediction import Predictions, predict
from bdclean.tasks.scanning import scan
from bdclean.tasks.training import train

__all__ = ["Predictions", "cleanse", "evaluate", "predict", "scan", "train"]
