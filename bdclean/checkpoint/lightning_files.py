"""Lightning's writing and reading of training checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from bdclean.checkpoint.files import load
from bdclean.checkpoint.write import write_whole
from bdclean.errors import Given


class CheckedFiles(TorchCheckpointIO):
    """Writes and reads training checkpoints with this program's own functions.

    Lightning writes to the folder of temporary files and moves the file, which on another file system is a copy that a
    full disk leaves incomplete. It also lets torch read a file that `bdclean.checkpoint` has checked before. Lightning
    still handles remote paths such as `s3://...`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint, and make its folder."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file_path = Path(path)
        file_path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file_path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: _PATH, *args: Any, **options: Any) -> Any:
        """The content of a checkpoint, on the CPU."""
        if "://" in str(path):
            return super().load_checkpoint(path, *args, **options)
        return load(str(path), Given("ckpt_path", path)).content
