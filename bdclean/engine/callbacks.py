"""Callback that records training curves."""

from __future__ import annotations

import lightning.pytorch as pl


class History(pl.Callback):
    """Records the logged figures of each epoch.

    Attributes:
        curves: Epochs and values of each figure, by name.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.validated = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning, whose `callback_metrics` keep the last validation's figures until the next one."""
        for name, value in trainer.callback_metrics.items():
            if self.validated or not name.startswith("val/"):
                self.curves.setdefault(name, []).append((trainer.current_epoch + 1, float(value)))
        self.validated = False
