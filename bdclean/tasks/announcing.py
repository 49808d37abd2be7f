"""The first line of a task: what it does, and about how long it takes."""

from __future__ import annotations

from bdclean.cleansing import Cleanser
from bdclean.data import PoisonDataModule
from bdclean.engine.estimate import duration, seconds_per_step
from bdclean.engine.precision import whole
from bdclean.engine.trainer import Trainer


def announcement(trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule) -> str:
    """What a cleansing does and about how long it takes, without the scan of its report."""
    images = len(datamodule.defender.own) if cleanser.uses_images else 0
    epochs = trainer.max_epochs or cleanser.epochs_of(images)
    step = seconds_per_step(whole(cleanser).to(trainer.device), cleanser.image_size)
    took = duration(step * images * max(1, epochs) * cleanser.relative_time)
    # The scan decides how long some methods train.
    known = cleanser.epochs and (trainer.max_epochs or not cleanser.scans)
    trains = f", {epochs} epoch{'' if epochs == 1 else 's'}" if known else ""
    return f"{type(cleanser).__name__}: {images} images{trains}, on {trainer.device_name}; {took}"
