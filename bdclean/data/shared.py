"""Images that the processes of one machine have in memory together."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock

from bdclean.checkpoint import write_whole
from bdclean.data.images import ArrayImages, Images

FOLDER = "SHARED_BY_BDCLEAN"
"""The variable that tells processes where the images lie that they have together; no option, which begin otherwise."""


@contextmanager
def sharing() -> Iterator[None]:
    """Within it, this process and those that it starts have images together.

    Processes that somebody else starts, as torchrun does, have their own.
    """
    if {FOLDER, "LOCAL_RANK"} & os.environ.keys():
        yield
        return
    # Another process may still have them, which not every system likes.
    with tempfile.TemporaryDirectory(prefix="bdclean-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


def together(name: str, load: Callable[[], Images]) -> Images:
    """Images that one process loads, and all map into their memory.

    Args:
        name: What tells these images from others.
        load: Loads them. Files are not read here, so everybody has them.
    """
    if FOLDER not in os.environ:
        return load()
    place = Path(os.environ[FOLDER], hashlib.sha256(name.encode()).hexdigest())
    with FileLock(f"{place}.lock"):
        if not place.exists():
            images = load()
            if not isinstance(images, ArrayImages):
                return images
            content = {"pixels": images.pixels, "size": images.size, "labels": images.labels}
            try:
                write_whole(place, lambda file: torch.save(content, file))
            except (OSError, RuntimeError):  # there is no room
                return images
    return ArrayImages(**torch.load(place, mmap=True, weights_only=True))
