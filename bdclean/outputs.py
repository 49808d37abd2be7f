"""The files that a command writes, checked before the computation starts."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bdclean.errors import InputError

SUFFIXES = {
    "fit": (".ckpt",),
    "cleanse": (".ckpt", ".pt", ".pth", ".tar", ".bin", ".safetensors", ".onnx"),
    "scan": (".json",),
    "filter": (".csv",),
    "poison": (".npz",),
}
"""Allowed suffixes of the result of each command; `predict` allows any."""
FOLDERS = ("cleanse", "poison")
"""Commands whose result can be a folder, whose name has no suffix."""
REPORTS = (".json", ".html")
"""Suffixes of the reports that are written beside a network or a table of scores."""
REPORT_SIZE = 2**17
"""Minimum size of a report, in bytes."""


@dataclass(frozen=True)
class Outputs:
    """Files that a command writes.

    Attributes:
        result: The file that `--output` names.
        reports: The reports beside it.
        before: For each file, its inode and modification time when the command began; None if it did not exist.
    """

    result: Path
    reports: tuple[Path, ...]
    before: tuple[tuple[int, int] | None, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (self.result, *self.reports)

    def state(self) -> str:
        """Which files were written, for the last line of an interrupted command."""
        changed = [_identity(path) not in (None, old) for path, old in zip(self.paths, self.before, strict=True)]
        parts = []
        for verb, selected in (("wrote", True), ("did not write", False)):
            names = [str(path) for path, written in zip(self.paths, changed, strict=True) if written is selected]
            parts += [f"{verb} {', '.join(names)}"] if names else []
        return "; ".join(parts)

    def forget_reports(self) -> None:
        """Remove the reports of an earlier run, which do not describe the new result."""
        for path in self.reports:
            path.unlink(missing_ok=True)


def check_name(command: str, output: str) -> None:
    """Check the name of a command's result.

    Args:
        command: Name of the command.
        output: The value of `--output`.

    Raises:
        InputError: If the command does not write files with this suffix, or the folder does not exist.
    """
    path, known = Path(output), SUFFIXES.get(command)
    if command != "scan" and path.suffix in REPORTS:
        raise InputError("output", output, "that is the name of the report")
    if known is not None and path.suffix not in known and (path.suffix or not path.name or command not in FOLDERS):
        raise InputError("output", output, f"must end with {', '.join(known)}")
    if not path.parent.is_dir():
        raise InputError("output", output, f"there is no folder {path.parent}")


def plan(output: str, beside: Sequence[str] = (), size: int = 0, folder: bool = False) -> Outputs:
    """The files of a command, after checking that they can be written.

    Args:
        output: The value of `--output`.
        beside: Suffixes of the reports, whose names are otherwise that of the result.
        size: Minimum size of the result, in bytes.
        folder: Whether the result is a folder.

    Raises:
        InputError: If a file cannot be written: its folder is missing, read-only or full, its name is too long, or
            something other than a file has this name.
    """
    result = Path(output)
    paths = (result, *(result.with_suffix(suffix) for suffix in beside))
    for path in paths:
        if refusal := _refusal(path, folder and path == result):
            raise InputError("output", output, f"{'' if path == result else f'the report {path} '}{refusal}")
    check_space(output, size + REPORT_SIZE * len(beside))
    return Outputs(result, paths[1:], tuple(map(_identity, paths)))


def check_space(output: str, needed: int) -> None:
    """Check that files of a size can be written.

    Args:
        output: The value of `--output`.
        needed: Their size, in bytes.

    Raises:
        InputError: If the disk or the largest file that the system allows is smaller.
    """
    result = Path(output)
    for available, where in ((_free_space(result), "left on the disk"), (_largest_file(), "allowed for a file")):
        if available is not None and available < needed:
            sizes = f"at least {needed / 2**20:.1f} MiB, and {available / 2**20:.1f} MiB are {where}"
            raise InputError("output", output, f"takes {sizes}")


def size_of(state: Mapping[str, object]) -> int:
    """Size of tensors in a file, in bytes."""
    return sum(getattr(value, "nbytes", 0) for value in state.values())


def _refusal(path: Path, folder: bool) -> str | None:
    """Why a file, or a folder, cannot be written; None if it can."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and not folder:
            return "is a folder"
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return "is not a regular file"
        if folder and not stat.S_ISDIR(mode):
            return "is a file, and the result is a folder"
        if not os.access(path, os.W_OK):
            return "is write-protected"
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    try:
        with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent):
            return None
    except OSError as error:
        return f"cannot be written there ({error.strerror})"


def _identity(path: Path) -> tuple[int, int] | None:
    """Inode and modification time of a file, which change when it is replaced; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _free_space(path: Path) -> int | None:
    """Free bytes on the file system of a file; None if the file system does not report them."""
    usage = shutil.disk_usage(Path(os.path.realpath(path)).parent)
    return usage.free if usage.total else None


def _largest_file() -> int | None:
    """Largest size of a file that the system allows this process, in bytes; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
