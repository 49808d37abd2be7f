"""List files in untrusted folders, with cyclic links, broken links and unreadable folders."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from bdclean.errors import Given, InputError

HIDDEN = (".", "__MACOSX", "$RECYCLE.BIN", "System Volume Information")
"""Prefixes of the names of hidden files and of files that the system made."""
Identity = tuple[int, int]
"""Device and inode, which identify a folder."""


def walk(folder: Path, others: Collection[Identity] = ()) -> tuple[list[Path], list[Path]]:
    """Find all files in a folder, its subfolders and linked folders, each of them once.

    Hidden files and folders are left out.

    Args:
        folder: The folder.
        others: Folders that are not entered, even if links lead to them.

    Returns:
        The files sorted by path, and unreadable paths: folders, broken links, and links to themselves.
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
            except OSError:  # e.g. a link to itself
                unreadable.append(Path(entry))
    return sorted(files), sorted(unreadable)


def listed(folder: Path) -> list[Path]:
    """Entries of a folder that are not hidden, sorted by name; empty if the folder cannot be read."""
    try:
        return [Path(entry) for entry in _entries(folder)]
    except OSError:
        return []


def folders(folder: Path, option: Given) -> list[Path]:
    """The folders in a folder, including linked folders, sorted by name.

    Args:
        folder: The folder.
        option: The parameter that named the folder, for messages.

    Raises:
        InputError: If the folder cannot be read.
    """
    try:
        return [Path(entry) for entry in _entries(folder) if os.path.isdir(entry)]
    except OSError as error:
        raise InputError(*option, f"{folder} cannot be read ({error.strerror})") from error


def identity(folder: Path) -> Identity:
    """Identity of a folder, which links to it share."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(HIDDEN)), key=lambda entry: entry.name)
