"""A verdict on networks of two classes: of two scores none stands out, so that it takes another network."""

from __future__ import annotations

from lightning.pytorch.callbacks import Checkpoint

from bdclean.cleansing import ScanDistill
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.scanning import Finding
from bdclean.scanning.difference import Difference


class Compared(ScanDistill):
    """The first phase of `ScanDistill`: a student is re-initialised, distilled, and compared with the suspect."""

    def turn(self) -> None:
        """Compare, and end."""
        self.compare(self.reference())
        self.trainer.fit_loop.max_epochs = self.current_epoch + 1

    def end(self) -> None:
        """Leave the student as it is: nobody gets it."""


def compare(
    trainer: Trainer, model: Classifier, datamodule: PoisonDataModule, findings: list[Finding]
) -> tuple[Difference, ...]:
    """What a network allows and a student re-initialised and distilled from it does not.

    Args:
        trainer: Which trains the student.
        model: The network. It is not changed.
        datamodule: Unlabeled images.
        findings: Of a scan, of which none stands out.
    """
    student = Compared(model)
    student.found = findings
    defence = datamodule.defence(False, student.chooses)
    # Nobody looks at the student's accuracy, nor keeps it.
    trainer.limit_val_batches = 0
    trainer.loggers = []
    kept = [one for one in trainer.callbacks if not isinstance(one, Checkpoint)]  # type: ignore[attr-defined]
    trainer.callbacks = kept  # type: ignore[attr-defined]  # Lightning sets it
    if trainer.max_epochs is None:
        trainer.fit_loop.max_epochs = student.epochs_of(defence.trained_count)
    trainer.train(student, defence)
    trainer.check_trained()
    return tuple(student.differences)
