"""How Lightning writes and reads the checkpoints of a training."""

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
    """Writes and reads checkpoints as every other file of this program is written and read.

    Lightning writes one to the folder of temporary files, and moves it: from one file system to another this is a copy,
    of which a full disk leaves half. It has torch read the file once more, after `bdclean.checkpoint` has checked it.
    Paths of other file systems, `s3://...`, are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint, with the folder that it goes into."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: _PATH, *args: Any, **options: Any) -> Any:
        """The content of a checkpoint, on the CPU."""
        if "://" in str(path):
            return super().load_checkpoint(path, *args, **options)
        return load(str(path), Given("ckpt_path", path)).content
