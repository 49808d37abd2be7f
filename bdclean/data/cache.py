"""A cache on disk of decoded or drawn images, which processes map into memory."""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from bdclean.checkpoint import write_whole

SMALLEST = 2**20
"""Minimum size of pixels to cache, in bytes; less is decoded as fast."""
UNUSED = 30 * 24 * 3600
"""Seconds after which an unused file is removed."""
Arrays = tuple[Tensor, Tensor]
"""Pixels of images, and their labels."""


def cached(key: Sequence[object], load: Callable[[], Arrays]) -> Arrays:
    """Pixels and labels from the cache, which is filled by the first process that needs them.

    If the cache cannot be written, each process decodes the images itself.

    Args:
        key: Identifies the content.
        load: Decodes the images.

    Returns:
        The result of `load`. Changes to it stay in this process.
    """
    decoded: Arrays | None = None
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(repr([torch.__version__, *key]).encode()).hexdigest()
        with FileLock(f"{path}.lock"):
            if not path.exists():
                decoded = content = load()
                if decoded[0].nbytes < SMALLEST:
                    return decoded
                write_whole(path, lambda file: torch.save(content, file))
                _tidy(folder)
        os.utime(path)
        pixels, labels = torch.load(path, mmap=True, weights_only=True)
        return pixels, labels
    except (OSError, RuntimeError):  # no space, no home folder, or no permission to write
        return decoded or load()


def source_of(function: Callable[..., object]) -> str:
    """A hash of the source file of a function that draws images, which changes with its code."""
    return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()


def identity(path: Path) -> tuple[str, int, int]:
    """Path, size and modification time of a file, which identify its content."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bdclean", "images")


def _tidy(folder: Path) -> None:
    """Remove files that have not been used for long, including those that killed processes left behind."""
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > UNUSED:
                path.unlink()
