"""Run one cell of a benchmark, from the suspect to the result.

A cell that is run twice, even at the same time, wastes time and nothing else: files are complete when they appear, and
a result is never replaced by an error. So no file has to be locked, which network file systems do unreliably.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bdclean import checkpoint, printable
from bdclean.benchmark.grid import Cell, Suspect
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.reporting.files import write_json
from bdclean.reporting.results import Cleansing

Result = TypeVar("Result")
JOB_NAME = "SLURM_JOB_NAME"
"""Environment variable with the name of a SLURM job."""
SHORT = (
    "--trainer.limit_val_batches=0",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_checkpointing=false",
)
"""Options that disable validation and checkpoints, which a benchmark does not use and should not time."""


@dataclass(frozen=True)
class Estimate:
    """The estimated duration of a command.

    Attributes:
        seconds: The duration, in seconds.
        model: The network of the command, not trained.
        source: The labelled images of the command.
    """

    seconds: float
    model: Classifier
    source: str | None


@dataclass(frozen=True)
class Command:
    """The command line. All functions raise an InputError for wrong words.

    Attributes:
        run: Runs the words of a command line, and returns a typed result.
        check: Refuses words that are certainly wrong, without running them.
        estimate: Estimates the duration of `fit` or `cleanse`, without running it.
    """

    run: Callable[[Sequence[str]], object]
    check: Callable[[Sequence[str]], None]
    estimate: Callable[[Sequence[str]], Estimate]


def run_alone(function: Callable[[Sequence[str]], Result], words: Sequence[str], folder: Path) -> Result:
    """Call a function of the command line for one process on one device, without logs.

    Args:
        function: The function, of a `Command`.
        words: The command line. Options that would start more processes are overridden, as each of those would start
            the whole benchmark.
        folder: Folder for what Lightning writes.
    """
    alone = (
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.devices=1",
        "--trainer.num_nodes=1",
        f"--trainer.default_root_dir={folder}",
    )
    before = os.environ.get(JOB_NAME)
    # In a job of this name Lightning does not expect one process for each SLURM task.
    os.environ[JOB_NAME] = "interactive"
    try:
        return function([*words, *alone])
    finally:
        if before is None:
            del os.environ[JOB_NAME]
        else:
            os.environ[JOB_NAME] = before


def train(suspect: Suspect, folder: Path, command: Command) -> Path:
    """Train a suspect and the suspect that it starts from, unless they are trained.

    Returns:
        The checkpoint.
    """
    path = suspect.path(folder)
    if path.exists():
        return path
    start = () if suspect.start is None else (f"--model.weights={train(suspect.start, folder, command)}",)
    with _scratch() as scratch:
        output = scratch / "suspect.ckpt"
        words = ["fit", *suspect.arguments, *start, *SHORT, f"--output={output}"]
        run_alone(command.run, words, scratch)
        _publish(output, path)
    return path


def cleanse(cell: Cell, folder: Path, command: Command, keep: bool) -> dict[str, Any]:
    """Run a cell, unless it has a result.

    Args:
        cell: The cell.
        folder: Folder of the benchmark.
        command: The command line.
        keep: Whether to keep the cleansed network beside the result.

    Returns:
        The result: the report of `bdclean cleanse`, or the reason of the failure as `error`.
    """
    path = cell.path(folder)
    if done(cell, folder, keep):
        return read(path) or {}
    with _scratch() as scratch:
        output = scratch / "cleansed.ckpt"
        try:
            suspect = str(train(cell.suspect, folder, command))
            # It comes first, so that the cell's options override it.
            source = f"--data.source={checkpoint.read(suspect).data['source']}"
            words = ["cleanse", source, *cell.arguments, *SHORT, f"--ckpt={suspect}", f"--output={output}"]
            cleansed = run_alone(command.run, words, scratch)
            assert isinstance(cleansed, Cleansing)
            kept = path.with_suffix(".ckpt") if keep else None
            if kept is not None:
                _publish(output, kept)
            paths = replace(cleansed.paths, output=None if kept is None else str(kept))
            result = replace(cleansed, paths=paths).to_json()
            write_json(path, result)
        except InputError as error:
            print(f"bdclean: error: {error}", file=sys.stderr)
            result = fail(cell, folder, str(error))
        except Exception as error:  # a method can fail in any way
            traceback.print_exc()
            result = fail(cell, folder, f"{type(error).__name__}: {error}")
    return result


def done(cell: Cell, folder: Path, keep: bool) -> bool:
    """Whether a cell has a result, and the cleansed network if `keep` is set."""
    path = cell.path(folder)
    return "error" not in (read(path) or {"error": ""}) and (not keep or path.with_suffix(".ckpt").exists())


def fail(cell: Cell, folder: Path, reason: str) -> dict[str, Any]:
    """Record the reason of a failure, unless the cell has a result, and return what is recorded."""
    path = cell.path(folder)
    # A task that another machine also ran, because this one seemed dead, may have succeeded there.
    if "error" in (result := read(path) or {"error": ""}):
        result = {"error": printable(reason)}
        write_json(path, result)
    return result


def read(path: Path) -> dict[str, Any] | None:
    """Read a result; None if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


@contextmanager
def _scratch() -> Iterator[Path]:
    """An empty folder on this machine, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="bdclean-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def _publish(file: Path, path: Path) -> None:
    """Copy a finished file into the folder of the benchmark, atomically: no process sees a part of it."""
    with file.open("rb") as source:
        checkpoint.write_whole(path, lambda target: shutil.copyfileobj(source, target))
