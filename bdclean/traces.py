"""Folders that a command makes for what may come: where nothing comes of it, none of them stays behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def removed_if_empty(folder: Path, keep: Callable[[BaseException], bool] = lambda error: True) -> Iterator[None]:
    """Make a folder, and in the end remove it if it is empty, with the parents that were made for it.

    A folder that was there before may be another command's: nothing is removed from it.

    Args:
        folder: Which is made.
        keep: Whether files in a folder that is new stay, given the error that ends the command.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
        # Perhaps since a moment ago, by a command that has begun at the same time.
        new = []
    try:
        yield
    except BaseException as error:
        # The parents may be in use by other commands.
        if new and not keep(error):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        # Of its parents other commands may use what is empty still.
        inside = [Path(path) for path, _, _ in os.walk(folder, topdown=False)] if new else []
        for path in (*inside, *new):
            with suppress(OSError):
                os.rmdir(path)
