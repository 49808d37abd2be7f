"""The first line that a task prints: its work and an estimate of its duration."""

from __future__ import annotations

from bdclean.cleansing import Cleanser
from bdclean.data import PoisonDataModule
from bdclean.engine.estimate import duration, seconds_per_step
from bdclean.engine.precision import whole
from bdclean.engine.trainer import Trainer


def announcement(trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule) -> str:
    """Describe a cleansing and estimate its duration, without the scan for its report."""
    images = len(datamodule.defender.own) if cleanser.uses_images else 0
    epochs = trainer.max_epochs or cleanser.epochs_of(images)
    step = seconds_per_step(whole(cleanser).to(trainer.device), cleanser.image_size)
    took = duration(step * images * max(1, epochs) * cleanser.relative_time)
    # For some methods the number of epochs depends on the result of the scan.
    known = cleanser.epochs and (trainer.max_epochs or not cleanser.scans)
    trains = f", {epochs} epoch{'' if epochs == 1 else 's'}" if known else ""
    return f"{type(cleanser).__name__}: {images} images{trains}, on {trainer.device_name}; {took}"
