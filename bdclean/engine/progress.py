"""Lightning's progress bars, with epochs counted from one: "epoch 3/12"."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar


def _epoch(trainer: pl.Trainer, epoch: int) -> str:
    last = trainer.max_epochs
    return f"epoch {epoch + 1}" + ("" if last in (None, -1) else f"/{last}")


class PlainBar(TQDMProgressBar):
    """Progress bar without the package rich."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Called by Lightning."""
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(_epoch(trainer, trainer.current_epoch))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Called by Lightning: leave out the version number of the run."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class RichBar(RichProgressBar):
    """Progress bar with the package rich."""

    def _get_train_description(self, current_epoch: int) -> str:
        return _epoch(self.trainer, current_epoch)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Called by Lightning: leave out the version number of the run."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


def counted_from_one(callbacks: list[pl.Callback]) -> list[pl.Callback]:
    """Replace Lightning's progress bars by these; a user's own bars are kept."""
    ours: dict[type[pl.Callback], type[ProgressBar]] = {TQDMProgressBar: PlainBar, RichProgressBar: RichBar}
    return [ours[type(one)]() if type(one) in ours else one for one in callbacks]
