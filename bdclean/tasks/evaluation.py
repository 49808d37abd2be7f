"""Evaluate a network on the test images."""

from __future__ import annotations

from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.reporting.measures import Figures, measured
from bdclean.reporting.parts import Confusion, Example


def evaluate(trainer: Trainer, model: Classifier, datamodule: PoisonDataModule) -> Figures:
    """Measure a network on the test images.

    Args:
        trainer: The Trainer.
        model: The network; for a cleanser, the agreement with its suspect is measured too.
        datamodule: The images.
    """
    tested = trainer.test(model, datamodule=datamodule, verbose=False)
    return measured(tested, model.counted())


def confusions(model: Classifier, name: str) -> tuple[Confusion, ...]:
    """The confusion matrices of a network's last evaluation, labelled with a name for the network."""
    return tuple(Confusion(name, part, matrix) for part, matrix in model.confusions.items())


EXAMPLES = 8
"""Number of images that show a trigger."""


def examples(datamodule: PoisonDataModule) -> tuple[Example, ...]:
    """Test images without and with the attack's trigger; empty without an attack."""
    pairs = datamodule.attacker.examples(EXAMPLES)
    return (Example("Clean, triggered, difference", pairs.clean, pairs.triggered),) if pairs else ()
