"""A reference for networks of two classes: of two scores none stands out, so that it takes those of another network."""

from __future__ import annotations

from lightning.pytorch.callbacks import Checkpoint

from bdclean import scanning
from bdclean.cleansing import ScanDistill
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.scanning import Finding
from bdclean.scanning.base import Network
from bdclean.tasks.looking import scanned_images, scanned_network


class Student(ScanDistill):
    """The first phase of `ScanDistill`: a copy is re-initialised in part, and distilled from the network."""

    def end_first_phase(self) -> None:
        """End the training."""
        self.trainer.fit_loop.max_epochs = self.current_epoch + 1

    def compare(self, reference: Network) -> None:
        """Compare nothing: a scan of the student does."""

    def end(self) -> None:
        """Leave the student as it is."""


def scan_student(
    trainer: Trainer, model: Classifier, datamodule: PoisonDataModule, findings: list[Finding]
) -> list[Finding]:
    """Scan a copy of a network that was re-initialised in part and distilled from it, which has less of a backdoor.

    Args:
        trainer: Trains the student, without logs, checkpoints and validation.
        model: The network. It is not changed.
        datamodule: Unlabeled images.
        findings: The findings in the network itself, of which none stands out.
    """
    student = Student(model)
    student.found = findings
    defence = datamodule.defence(False, student.needs_selection_images)
    trainer.limit_val_batches = 0
    trainer.loggers = []
    kept = [one for one in trainer.callbacks if not isinstance(one, Checkpoint)]  # type: ignore[attr-defined]
    trainer.callbacks = kept  # type: ignore[attr-defined]  # Lightning sets it
    if trainer.max_epochs is None:
        trainer.fit_loop.max_epochs = student.epochs_of(defence.trained_count)
    trainer.train(student, defence)
    trainer.check_trained()
    images = scanned_images(trainer, datamodule)
    return scanning.scan(scanned_network(trainer, student, images), images, model.num_classes)
