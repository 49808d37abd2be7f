"""The files that a command writes: refused before the work where they cannot be written or are somebody else's."""

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
}
"""What the name of a command's result ends with; that of `predict` may end with anything else."""
FOLDERS = ("cleanse",)
"""Commands whose result can be a folder, which has a name without a suffix."""
REPORTS = (".json", ".html")
"""What the names of reports beside a network end with."""
REPORT_SIZE = 2**17
"""Bytes that a command's reports take at least."""


@dataclass(frozen=True)
class Outputs:
    """Files that a command writes.

    Attributes:
        result: The file that `--output` names.
        reports: The files beside it.
        before: For each file what stood there when the command began; None if nothing did.
    """

    result: Path
    reports: tuple[Path, ...]
    before: tuple[tuple[int, int] | None, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of the files."""
        return (self.result, *self.reports)

    def state(self) -> str:
        """Which of the files were written, for the line that ends an interrupted command."""
        changed = [_identity(path) not in (None, old) for path, old in zip(self.paths, self.before, strict=True)]
        parts = []
        for verb, wanted in (("wrote", True), ("did not write", False)):
            names = [str(path) for path, written in zip(self.paths, changed, strict=True) if written is wanted]
            parts += [f"{verb} {', '.join(names)}"] if names else []
        return "; ".join(parts)

    def forget_reports(self) -> None:
        """Remove the reports of an earlier run: they do not describe the result that is written now."""
        for path in self.reports:
            path.unlink(missing_ok=True)


def check_name(command: str, output: str) -> None:
    """Refuse a name that a command's result cannot have.

    Args:
        command: Of those that write.
        output: The value of `--output`.

    Raises:
        InputError: If it ends with nothing that the command writes, or there is no such folder.
    """
    path, known = Path(output), SUFFIXES.get(command)
    if command != "scan" and path.suffix in REPORTS:
        raise InputError("output", output, "that is the name of the report")
    if known is not None and path.suffix not in known and (path.suffix or not path.name or command not in FOLDERS):
        raise InputError("output", output, f"must end with {', '.join(known)}")
    if not path.parent.is_dir():
        raise InputError("output", output, f"there is no folder {path.parent}")


def plan(output: str, beside: Sequence[str] = (), size: int = 0, folder: bool = False) -> Outputs:
    """The files of a command, if they can be written.

    Args:
        output: The value of `--output`.
        beside: Suffixes of the reports, which are called as the result is.
        size: Bytes that the result takes at least.
        folder: Whether the result is a folder.

    Raises:
        InputError: If one of them cannot be written: its folder is missing, read-only or full, its name is too long, or
            something other than a file has its name.
    """
    result = Path(output)
    paths = (result, *(result.with_suffix(suffix) for suffix in beside))
    for path in paths:
        if refusal := _refusal(path, folder and path == result):
            raise InputError("output", output, f"{'' if path == result else f'the report {path} '}{refusal}")
    needed = size + REPORT_SIZE * len(beside)
    for available, where in ((_free_space(result), "left on the disk"), (_largest_file(), "allowed for a file")):
        if available is not None and available < needed:
            sizes = f"at least {needed / 2**20:.1f} MiB, and {available / 2**20:.1f} MiB are {where}"
            raise InputError("output", output, f"takes {sizes}")
    return Outputs(result, paths[1:], tuple(map(_identity, paths)))


def size_of(state: Mapping[str, object]) -> int:
    """Bytes that tensors take in a file."""
    return sum(getattr(value, "nbytes", 0) for value in state.values())


def _refusal(path: Path, folder: bool) -> str | None:
    """Why a file, or a folder, cannot be written; None if it can."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and not folder:
            return "is a folder"
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return "is no regular file"
        if folder and not stat.S_ISDIR(mode):
            return "is a file, and a folder is to be written"
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
    """Another whenever a file is replaced; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _free_space(path: Path) -> int | None:
    """Bytes free where a file goes; None where the file system does not say."""
    usage = shutil.disk_usage(Path(os.path.realpath(path)).parent)
    return usage.free if usage.total else None


def _largest_file() -> int | None:
    """Bytes that the system allows a file of this process; None for any number."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
