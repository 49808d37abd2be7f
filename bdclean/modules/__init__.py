"""The LightningModules of classification."""

from bdclean.modules.attack import AttackModule
from bdclean.modules.classifier import Classifier

__all__ = ["AttackModule", "Classifier"]
