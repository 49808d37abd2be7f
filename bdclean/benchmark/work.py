"""One cell of a benchmark, from the suspect to the result; any number of processes may try."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from filelock import FileLock

from bdclean import checkpoint, printable
from bdclean.benchmark.grid import Cell, Suspect
from bdclean.reporting.files import write_json

Command = Callable[[list[str]], None]
"""The command line: ends in SystemExit if something is wrong, after one line on standard error."""

ALONE = (
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.devices=1",
    "--trainer.num_nodes=1",
)
"""A cell is one process on one device: other processes would start the benchmark anew."""
SHORT = (
    "--trainer.limit_val_batches=0",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_checkpointing=false",
)
"""What nobody looks at is left out, and does not count as time of the method."""


def train(suspect: Suspect, folder: Path, command: Command) -> Path:
    """Train a suspect, unless that was done; wait where another process is at it.

    Returns:
        Its checkpoint.
    """
    path = suspect.path(folder)
    with alone(folder, suspect.key) as scratch:
        if not path.exists():
            output = scratch / "suspect.ckpt"
            _call(command, ["fit", *suspect.arguments, *SHORT, f"--output={output}"], scratch)
            os.replace(output, path)
    return path


def cleanse(cell: Cell, folder: Path, command: Command, keep: bool) -> dict[str, Any]:
    """Do a cell, unless that was done; wait where another process is at it.

    Args:
        cell: What is to be done.
        folder: Of the benchmark.
        command: The command line.
        keep: Whether the cleansed network is kept, beside the result.

    Returns:
        The result: the report of `bdclean cleanse`, or the reason why there is none, as `error`.
    """
    path = cell.path(folder)
    asked = time.time()
    with alone(folder, cell.key) as scratch:
        result = read(path)
        # One that failed is tried again, unless another process did so meanwhile.
        if result is not None and (done(cell, folder, keep) or path.stat().st_mtime > asked):
            return result
        output = scratch / "cleansed.ckpt"
        try:
            suspect = str(train(cell.suspect, folder, command))
            # First, so that the cell's own options come after it.
            source = f"--data.source={checkpoint.read(suspect).data['source']}"
            words = ["cleanse", source, *cell.arguments, *SHORT, f"--ckpt={suspect}", f"--output={output}"]
            _call(command, words, scratch)
            result = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
            result |= {"checkpoint": suspect, "output": None}
            if keep:
                os.replace(output, path.with_suffix(".ckpt"))
                result["output"] = str(path.with_suffix(".ckpt"))
        except Exception as error:  # anything may be wrong with a method, a suspect or images
            traceback.print_exc()
            result = {"error": _reason(error)}
        write_json(path, result)
    return result


def done(cell: Cell, folder: Path, keep: bool) -> bool:
    """Whether a cell has its result, and its network, if that is to be kept."""
    path = cell.path(folder)
    return "error" not in (read(path) or {"error": ""}) and (not keep or path.with_suffix(".ckpt").exists())


def fail(cell: Cell, folder: Path, reason: str) -> None:
    """Note why a cell has no result, where it has none."""
    path = cell.path(folder)
    with alone(folder, cell.key):
        if "error" in (read(path) or {"error": ""}):
            write_json(path, {"error": printable(reason)})


def read(path: Path) -> dict[str, Any] | None:
    """A result that was written; None if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


@contextmanager
def alone(folder: Path, key: str) -> Iterator[Path]:
    """A folder for what is half done, of one process at a time; what one left that was killed is gone."""
    place = folder / "unfinished" / key
    with FileLock(f"{place}.lock"):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def tidy(folder: Path, key: str) -> None:
    """Remove what a process left that was killed when its result was written already."""
    if (folder / "unfinished" / key).exists():
        with alone(folder, key):
            pass


def _reason(error: Exception) -> str:
    """An error in one line; its kind too, if it is not one of ours."""
    text = str(error) if isinstance(error, _WrongInputError) else f"{type(error).__name__}: {error}"
    return printable(text)


class _WrongInputError(RuntimeError):
    """What the command line has against its words."""


def _call(command: Command, words: Sequence[str], scratch: Path) -> None:
    """Run the command line in one process, without logs.

    Raises:
        _WrongInputError: With the line that it ends with, if it does not like its words.
        SystemExit: If it was interrupted.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            command([*words, *ALONE, f"--trainer.default_root_dir={scratch}"])
    except SystemExit as end:
        lines = said.getvalue().strip().splitlines()
        if end.code == 2 and lines:
            raise _WrongInputError(lines[-1].removeprefix("bdclean: error: ")) from end
        raise SystemExit(end.code or 1) from end
    finally:
        sys.stderr.write(said.getvalue())
