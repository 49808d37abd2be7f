"""Images that were decoded or drawn before, kept in a file that every process maps into its memory."""

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
"""Bytes of pixels from which on they are kept: fewer are decoded as fast."""
UNUSED = 30 * 24 * 3600
"""Seconds after which a file that nobody has used is removed."""
Arrays = tuple[Tensor, Tensor]
"""Pixels of images, and their labels."""


def cached(key: Sequence[object], load: Callable[[], Arrays]) -> Arrays:
    """Pixels and labels, decoded once and mapped into memory from then on, by one process or by many.

    Where no files can be kept each process decodes for itself.

    Args:
        key: What they are made of: the same for the same content alone.
        load: Decodes them.

    Returns:
        What `load` gives. Changes are this process's own.
    """
    made: Arrays | None = None
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / hashlib.sha256(repr([torch.__version__, *key]).encode()).hexdigest()
        with FileLock(f"{place}.lock"):
            if not place.exists():
                made = content = load()
                if made[0].nbytes < SMALLEST:
                    return made
                write_whole(place, lambda file: torch.save(content, file))
                _tidy(folder)
        os.utime(place)
        pixels, labels = torch.load(place, mmap=True, weights_only=True)
        return pixels, labels
    except (OSError, RuntimeError):  # there is no room, no home, or no right to write
        return made or load()


def source_of(function: Callable[..., object]) -> str:
    """What tells a function that draws from what it was before it was changed."""
    return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()


def identity(path: Path) -> tuple[str, int, int]:
    """What tells a file from others, and from what it was before it was written anew."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bdclean", "images")


def _tidy(folder: Path) -> None:
    """Remove what nobody has used for long, and what processes left that were killed."""
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > UNUSED:
                path.unlink()
