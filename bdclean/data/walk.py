"""Files in folders that may be hostile: links in circles, links to nothing, folders that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from bdclean.errors import Given, InputError

HIDDEN = (".", "__MACOSX", "$RECYCLE.BIN", "System Volume Information")
"""Beginnings of names that no file of the user's has: the system made them."""
Identity = tuple[int, int]
"""What tells a folder from all others."""


def walk(folder: Path, others: Collection[Identity] = ()) -> tuple[list[Path], list[Path]]:
    """Find all files in a folder, in the folders inside, and in folders that links lead to, each of them once.

    Hidden files and folders are left out.

    Args:
        folder: The folder.
        others: Folders that are not entered, though links lead to them.

    Returns:
        The files in the order of their paths, and what cannot be read: folders, and links that lead to nothing or to
        themselves.
    """
    files: list[Path] = []
    unreadable: list[Path] = []
    entered = {identity(folder), *others}
    waiting = [folder]
    while waiting:
        try:
            entries = _entries(current := waiting.pop())
        except OSError:
            unreadable.append(current)
            continue
        for entry in entries:
            try:
                if entry.is_dir():
                    if (found := identity(Path(entry))) not in entered:
                        entered.add(found)
                        waiting.append(Path(entry))
                elif entry.is_file():
                    files.append(Path(entry))
                elif entry.is_symlink():
                    unreadable.append(Path(entry))
            except OSError:  # a link to itself, for one
                unreadable.append(Path(entry))
    return sorted(files), sorted(unreadable)


def listed(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, by name; nothing if the folder cannot be read."""
    try:
        return [Path(entry) for entry in _entries(folder)]
    except OSError:
        return []


def folders(folder: Path, option: Given) -> list[Path]:
    """The folders in a folder, and those that links in it lead to, by name.

    Args:
        folder: The folder.
        option: The parameter that named it, for the message.

    Raises:
        InputError: If the folder cannot be read.
    """
    try:
        return [Path(entry) for entry in _entries(folder) if os.path.isdir(entry)]
    except OSError as error:
        raise InputError(*option, f"{folder} cannot be read ({error.strerror})") from error


def identity(folder: Path) -> Identity:
    """The same for a folder and for links to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(HIDDEN)), key=lambda entry: entry.name)
