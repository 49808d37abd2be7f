"""LightningModules of classifiers."""

from bdclean.modules.attack import AttackModule
from bdclean.modules.classifier import Classifier
from bdclean.modules.identify import identify
from bdclean.modules.suspect import Suspect, describe

__all__ = ["AttackModule", "Classifier", "Suspect", "describe", "identify"]
