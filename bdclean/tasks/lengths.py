"""How long a method trains: as the user says, as long as the method needs, or as a time limit allows."""

from __future__ import annotations

from bdclean.cleansing import Cleanser
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.errors import InputError
from bdclean.scanning import Budget
from bdclean.tasks.announcing import training_passes

EVALUATION_SHARE = 0.2
"""Share of the remaining time that training leaves for what follows it."""


def check_length(trainer: Trainer, cleanser: Cleanser) -> None:
    """Refuse a training length that does not fit the method."""
    name = type(cleanser).__name__
    if cleanser.epochs and (option := trainer.without_training):
        raise InputError(*option, f"no training step, but {name} trains")
    if trainer.max_epochs and not cleanser.epochs:
        raise InputError("trainer.max_epochs", trainer.max_epochs, f"{name} does not train")


def set_epochs(trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule, budget: Budget | None) -> None:
    """Use the method's default number of epochs, unless the user set another or a time limit allows only fewer."""
    if trainer.max_epochs is not None:
        return
    epochs = default = cleanser.epochs_of(datamodule.trained_count)
    if budget is not None and default:
        passes = training_passes(cleanser, datamodule.trained_count, 1)
        epochs = max(1, min(default, int((1 - EVALUATION_SHARE) * budget.remaining_passes / passes)))
        if epochs < default:
            budget.left_out.append(f"{default - epochs} of {default} epochs")
    trainer.fit_loop.max_epochs = epochs
