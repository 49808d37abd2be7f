"""Output folders that are removed again if they stay empty."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def removed_if_empty(folder: Path, keep: Callable[[BaseException], bool] = lambda error: True) -> Iterator[None]:
    """Make a folder, and remove it at the end if it is empty, with the parents that were made for it.

    Nothing is removed from a folder that existed before, as it may belong to another command.

    Args:
        folder: The folder to make.
        keep: Tells whether files in a new folder are kept after the error that ended the command.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
        # A command that started at the same time may have made it since.
        new = []
    try:
        yield
    except BaseException as error:
        # Only the folder itself: other commands may use its parents.
        if new and not keep(error):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        # rmdir fails for folders that are not empty, such as parents that other commands use.
        inside = [Path(path) for path, _, _ in os.walk(folder, topdown=False)] if new else []
        for path in (*inside, *new):
            with suppress(OSError):
                os.rmdir(path)
