"""How Lightning reads the checkpoint of an interrupted training."""

from __future__ import annotations

from typing import Any

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import TorchCheckpointIO

from bdclean.checkpoint.files import load


class CheckedIO(TorchCheckpointIO):
    """Reads checkpoints as `bdclean.checkpoint` does, where Lightning would have torch read the file once more."""

    def load_checkpoint(self, path: _PATH, *args: Any, **options: Any) -> Any:
        """The content of a checkpoint, on the CPU."""
        return load(str(path), f"--ckpt_path {path}").content
