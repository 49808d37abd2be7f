"""Checks before test and validate, and the table after them: LightningCLI calls these methods by name."""

from __future__ import annotations

from typing import Any

from bdclean import escaped
from bdclean.checkpoint import Checkpoint
from bdclean.data import PoisonDataModule
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.reporting.measures import measured
from bdclean.reporting.wording import IN_PERCENT, figures_table, wide_intervals


class Evaluations:
    """The part of the command line for test and validate."""

    model: Classifier
    datamodule: PoisonDataModule
    trainer: Any
    checkpoint: Checkpoint | None
    result: Any

    def before_test(self) -> None:
        """Refuse data without test images."""
        if not self.datamodule.labelled and self.datamodule.triggered is None:
            raise InputError("data.source", None, "has no labelled test images, so there is nothing to measure")

    def before_validate(self) -> None:
        """Refuse data without validation images."""
        if not self.datamodule.trainable:
            raise InputError("data.source", None, "has no labelled training images to hold a validation set out of")

    def after_test(self) -> None:
        """Print the figures on the test images, as `fit` does."""
        self._print_figures("test", "test")

    def after_validate(self) -> None:
        """Print the figures on the validation images."""
        self._print_figures("val", "validation")

    def _print_figures(self, stage: str, images: str) -> None:
        if self.trainer.is_global_zero:
            path = self.checkpoint.path if self.checkpoint else "network"
            figures = {escaped(str(path)): measured(self.result, self.model.judging.counted(stage), stage)}
            print("\n".join([figures_table(figures).plain(), *wide_intervals(figures), IN_PERCENT.format(images)]))
