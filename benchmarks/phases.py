"""When a command of the shell reaches each of its phases: a callback for `--trainer.callbacks+=phases.Phases`.

Times, in seconds since 1970, and the peak memory of the device, in MiB, are written into the file that the variable
PHASES names. See commands.py.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

IMPORTED = time.time()


class Phases(pl.Callback):
    """Notes when each phase begins, and in the end writes the times down."""

    def __init__(self) -> None:
        self.times = {"imported": IMPORTED}

    def note(self, name: str) -> None:
        """A phase begins now: what a device was asked for before belongs to the one before."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times[name] = time.time()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called by Lightning."""
        if "trains" not in self.times:
            self.note("trains")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.note("trained")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning; a cleansing tests the suspect, too, before it trains."""
        self.note("tested" if "trained" in self.times else "suspect tested")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called by Lightning."""
        memory = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None
        content = {"times": self.times, "device_memory": memory}
        Path(os.environ["PHASES"]).write_text(json.dumps(content), encoding="utf-8")
