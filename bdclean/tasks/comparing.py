"""A reference network for scans of two classes, as neither of only two scores can stand out."""

from __future__ import annotations

from lightning.pytorch.callbacks import Checkpoint

from bdclean import scanning
from bdclean.cleansing import ScanDistill
from bdclean.data import PoisonDataModule
from bdclean.engine.estimate import DISTILLATION_PASSES
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.scanning import Budget, Finding, detectors_of, scan_passes
from bdclean.scanning.base import Network
from bdclean.tasks.looking import scanned_images, scanned_network


class Student(ScanDistill):
    """The first phase of `ScanDistill`: re-initialise part of a copy, and distill the network into it."""

    def end_first_phase(self) -> None:
        """End the training."""
        self.trainer.fit_loop.max_epochs = self.current_epoch + 1

    def compare(self, reference: Network) -> None:
        """Do nothing: the student is scanned instead."""

    def end(self) -> None:
        """Do nothing: the student is used as trained."""


def scan_student(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    findings: list[Finding],
    budget: Budget | None = None,
) -> list[Finding]:
    """Scan a partly re-initialised copy that was distilled from a network, in which a backdoor is weaker.

    Args:
        trainer: The Trainer for the student; it gets no logs, checkpoints or validation.
        model: The network. It is not changed.
        datamodule: Unlabeled images.
        findings: The findings in the network itself.
        budget: A time limit.

    Returns:
        A finding of each detector that has one in the network; none if training and scanning the copy do not fit into
        the time limit.
    """
    student = Student(model)
    student.found = findings
    defence = datamodule.defence(False, student.needs_selection_images)
    epochs = trainer.max_epochs or student.epochs_of(defence.trained_count)
    passes = (
        scan_passes(model.num_classes, model.image_size, detectors_of(findings))
        + DISTILLATION_PASSES * epochs * defence.trained_count
    )
    if budget is not None and not budget.allows("the comparison with a re-initialised copy", passes):
        return []
    trainer.limit_val_batches = 0
    trainer.loggers = []
    kept = [one for one in trainer.callbacks if not isinstance(one, Checkpoint)]  # type: ignore[attr-defined]
    trainer.callbacks = kept  # type: ignore[attr-defined]  # Lightning sets it
    if trainer.max_epochs is None:
        trainer.fit_loop.max_epochs = epochs
    student.defence = defence
    trainer.train(student, defence)
    trainer.check_trained()
    images = scanned_images(trainer, datamodule)
    return scanning.scan(scanned_network(trainer, student, images), images, model.num_classes, detectors_of(findings))
