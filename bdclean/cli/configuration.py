"""Save the configuration of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, loggers
from lightning.pytorch.cli import SaveConfigCallback

from bdclean import escaped
from bdclean.checkpoint import write_text


class LogConfig(SaveConfigCallback):
    """Writes the configuration of a run to its folder of logs and to TensorBoard."""

    def save_config(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Called by Lightning in one process, when training starts."""
        for logger in trainer.loggers:
            if isinstance(logger, loggers.TensorBoardLogger):
                text = escaped(self.parser.dump(self.config))
                os.makedirs(logger.log_dir, exist_ok=True)
                write_text(Path(logger.log_dir, "config.yaml"), text)
                logger.experiment.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
