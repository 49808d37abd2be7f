"""A callback that records when a command reaches each phase: `--trainer.callbacks+=phases.Phases`.

It writes times, in seconds since 1970, and memory, in MiB, to the folder in the environment variable PHASES, one file
per process. See commands.py and scaling.py.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from bdclean.engine.process import peak_memory

IMPORTED = time.time()


class Phases(pl.Callback):
    """Records the start of each phase, and writes the times at the end."""

    def __init__(self) -> None:
        self.times = {"imported": IMPORTED}
        self.epochs: list[float] = []
        self.memory: int | None = None
        atexit.register(self.end)

    def end(self) -> None:
        """Write the peak memory when the process exits."""
        Path(os.environ["PHASES"], "peak").write_text(str(peak_memory()), encoding="utf-8")

    def note(self, name: str) -> None:
        """Record the start of a phase, after the device has finished the previous one."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times[name] = time.time()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called by Lightning."""
        if "trains" not in self.times:
            self.note("trains")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.epochs.append(time.time())
        self.memory = share_of_memory()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.note("trained")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning; a cleansing also tests the suspect before training."""
        self.note("tested" if "trained" in self.times else "suspect tested")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called by Lightning."""
        device = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None
        content = {"times": self.times, "epochs": self.epochs, "memory": self.memory, "device_memory": device}
        Path(os.environ["PHASES"], f"{trainer.global_rank}.json").write_text(json.dumps(content), encoding="utf-8")


def share_of_memory(process: int | str = "self") -> int | None:
    """A process's proportional share of memory (PSS), in MiB; None outside Linux."""
    rollup = Path(f"/proc/{process}/smaps_rollup")
    if not rollup.exists():
        return None
    return sum(int(row.split()[1]) for row in rollup.read_text().splitlines() if row.startswith("Pss:")) // 2**10
