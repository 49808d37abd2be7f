"""What is noted while a network trains."""

from __future__ import annotations

import lightning.pytorch as pl


class History(pl.Callback):
    """Keeps what was logged, and after how many epochs.

    Attributes:
        curves: Name of each figure to its epochs and values.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.validated = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning, which keeps the figures of the last validation until the next."""
        for name, value in trainer.callback_metrics.items():
            if self.validated or not name.startswith("val/"):
                self.curves.setdefault(name, []).append((trainer.current_epoch + 1, float(value)))
        self.validated = False
