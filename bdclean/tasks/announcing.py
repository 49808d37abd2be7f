"""The first line that a task prints: its work and an estimate of its duration."""

from __future__ import annotations

from datetime import timedelta

import torch

from bdclean import crowding
from bdclean.cleansing import Cleanser
from bdclean.data import PoisonDataModule
from bdclean.data.notices import say
from bdclean.engine.estimate import DISTILLATION_PASSES, TRAINING_PASSES, duration, seconds_of, seconds_per_image
from bdclean.engine.precision import InBf16, whole
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.scanning import DETECTORS, SCANNED, Budget, Detector, scan_passes, searched
from bdclean.tasks.looking import scanned_network


def announce(plan: str) -> None:
    """Print the first line of a task, and whether other processes use the cores.

    Args:
        plan: The line, from one of the functions below.
    """
    say(plan)
    if crowded := crowding.notice():
        say(crowded)


def of_training(trainer: Trainer, model: Classifier, datamodule: PoisonDataModule) -> str:
    """Describe a training and estimate its duration, without the attack's preparation."""
    name = model.hparams["arch"] or type(model.network).__name__
    attack = f"with {datamodule.poisoning}" if datamodule.poisoning else "without an attack"
    if trainer.forgets:
        # Using a GPU, or loading images, in this process would disturb the forked ones.
        return f"Training {name} {attack} in {trainer.world_size} processes on {trainer.device.type}"
    images = len(datamodule.sets.attackers)
    # Without a limit of epochs or steps, the duration is unknown.
    limited = trainer.max_epochs or trainer.max_steps > 0
    took = f"; {duration(training_seconds(trainer, model, datamodule))}" if limited else ""
    trains = f", {_counted(trainer.max_epochs, 'epoch')}" if trainer.max_epochs else ""
    return f"Training {name} {attack}: {images:,} images{trains}, on {trainer.device_name}{took}"


def training_seconds(trainer: Trainer, model: Classifier, datamodule: PoisonDataModule) -> float:
    """Estimate the duration of a training, without the attack's preparation, in seconds."""
    epochs = trainer.max_epochs or 0
    images = len(datamodule.sets.attackers) * epochs
    if trainer.max_steps > 0:
        limit = trainer.max_steps * datamodule.batch_size
        images = min(images, limit) if epochs else limit
    return TRAINING_PASSES * images * _seconds(trainer, model) / trainer.world_size


def of_scan(
    trainer: Trainer, model: Classifier, detector: Detector | None, uses_images: bool, budget: Budget | None
) -> str:
    """Describe a scan and estimate its duration."""
    detectors = f"{len(DETECTORS)} detectors" if detector is None else type(detector).__name__
    classes = searched(model.num_classes)
    some = "" if classes == model.num_classes else f", of which {classes} are searched"
    passes = scan_passes(model.num_classes, model.image_size, None if detector is None else [detector])
    took = duration(passes * (_scan_seconds(trainer, model) if budget is None else budget.per_pass))
    images = f", up to {SCANNED} images" if uses_images else ""
    work = f"Scan: {detectors}, {model.num_classes:,} classes{some}{images}"
    return f"{work}, on {trainer.device_name}; {took}{_limited(budget)}"


def limit(trainer: Trainer, model: Classifier, budget: str | None) -> Budget | None:
    """The time limit of a task, which starts now; None without one.

    Args:
        trainer: The Trainer.
        model: The network.
        budget: The limit as the user gives it, such as `20m`.

    Raises:
        InputError: If it is no time.
    """
    return None if budget is None else Budget(seconds_of(budget), _scan_seconds(trainer, model))


def of_cleansing(trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule, budget: Budget | None) -> str:
    """Describe a cleansing and estimate its duration, without the scan for its report."""
    images, epochs = _work(trainer, cleanser, datamodule)
    took = duration(cleansing_seconds(trainer, cleanser, datamodule))
    # For some methods the number of epochs depends on the result of the scan.
    known = cleanser.epochs and (trainer.max_epochs or not cleanser.scans)
    trains = f", {_counted(epochs, 'epoch')}" if known else ""
    return f"{type(cleanser).__name__}: {images:,} images{trains}, on {trainer.device_name}; {took}{_limited(budget)}"


def cleansing_seconds(trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule) -> float:
    """Estimate the duration of a cleansing, without the scan for its report, in seconds."""
    images, epochs = _work(trainer, cleanser, datamodule)
    return _seconds(trainer, cleanser) * training_passes(cleanser, images, max(1, epochs))


def training_passes(cleanser: Cleanser, images: int, epochs: int) -> float:
    """Estimate the cost of a method that trains on images for some epochs, in forward passes of one image."""
    return DISTILLATION_PASSES * images * epochs * cleanser.relative_time


def _work(trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule) -> tuple[int, int]:
    """Numbers of images and of epochs of a cleansing."""
    images = len(datamodule.defender.own) if cleanser.uses_images else 0
    return images, trainer.max_epochs or cleanser.epochs_of(images)


def _seconds(trainer: Trainer, model: Classifier) -> float:
    network = whole(model).to(trainer.device)
    return seconds_per_image(InBf16(network) if trainer.precision == "bf16-mixed" else network, model.image_size)


def _scan_seconds(trainer: Trainer, model: Classifier) -> float:
    """As `_seconds`, of the network that detectors use, whose norms are folded."""
    network = scanned_network(trainer, model, torch.zeros(1, device=trainer.device))
    return seconds_per_image(network, model.image_size)


def _limited(budget: Budget | None) -> str:
    return "" if budget is None else f", limited to {timedelta(seconds=budget.seconds)}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
