"""What stands around Lightning's own commands, test and validate: LightningCLI calls it by its names."""

from __future__ import annotations

from typing import Any

from bdclean.data import PoisonDataModule
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.reporting.measures import measured
from bdclean.reporting.wording import wide_intervals


class Evaluations:
    """A part of a command line."""

    model: Classifier
    datamodule: PoisonDataModule
    trainer: Any

    def before_test(self) -> None:
        """Refuse to measure nothing."""
        if not self.datamodule.labelled and self.datamodule.triggered is None:
            raise InputError("data.source", None, "has no labelled test images, so there is nothing to measure")

    def before_validate(self) -> None:
        """As `before_test`."""
        if not self.datamodule.trainable:
            raise InputError("data.source", None, "has no labelled training images to hold a validation set out of")

    def after_test(self) -> None:
        """Say how far the figures of few images can be off: Lightning has printed them."""
        lines = wide_intervals({"": measured([], self.model.counted())})
        if lines and self.trainer.is_global_zero:
            print("\n".join(lines))
