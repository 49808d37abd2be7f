"""Run one cell of a benchmark, from the suspect to the result, safely with several processes at once."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from bdclean import checkpoint, printable
from bdclean.benchmark.grid import Cell, Suspect
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.reporting.files import write_json
from bdclean.reporting.results import Cleansing

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


def alone_in(folder: Path) -> tuple[str, ...]:
    """Options for one process on one device without logs, as further processes would restart the whole benchmark."""
    return (
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.devices=1",
        "--trainer.num_nodes=1",
        f"--trainer.default_root_dir={folder}",
    )


def train(suspect: Suspect, folder: Path, command: Command) -> Path:
    """Train a suspect and the suspect that it starts from, unless they are trained; wait for other processes.

    Returns:
        The checkpoint.
    """
    path = suspect.path(folder)
    start = () if suspect.start is None else (f"--model.weights={train(suspect.start, folder, command)}",)
    with alone(folder, suspect.key) as scratch:
        if not path.exists():
            output = scratch / "suspect.ckpt"
            command.run(["fit", *suspect.arguments, *start, *SHORT, *alone_in(scratch), f"--output={output}"])
            os.replace(output, path)
    return path


def cleanse(cell: Cell, folder: Path, command: Command, keep: bool) -> dict[str, Any]:
    """Run a cell, unless it has a result; wait for another process that runs it.

    Args:
        cell: The cell.
        folder: Folder of the benchmark.
        command: The command line.
        keep: Whether to keep the cleansed network beside the result.

    Returns:
        The result: the report of `bdclean cleanse`, or the reason of the failure as `error`.
    """
    path = cell.path(folder)
    started = time.time()
    with alone(folder, cell.key) as scratch:
        result = read(path)
        # Retry a failed cell, unless another process has retried it in the meantime.
        if result is not None and (done(cell, folder, keep) or path.stat().st_mtime > started):
            return result
        output = scratch / "cleansed.ckpt"
        try:
            suspect = str(train(cell.suspect, folder, command))
            # It comes first, so that the cell's options override it.
            source = f"--data.source={checkpoint.read(suspect).data['source']}"
            files = (f"--ckpt={suspect}", f"--output={output}")
            cleansed = command.run(["cleanse", source, *cell.arguments, *SHORT, *alone_in(scratch), *files])
            assert isinstance(cleansed, Cleansing)
            kept = path.with_suffix(".ckpt") if keep else None
            if kept is not None:
                os.replace(output, kept)
            paths = replace(cleansed.paths, output=None if kept is None else str(kept))
            result = replace(cleansed, paths=paths).to_json()
        except InputError as error:
            print(f"bdclean: error: {error}", file=sys.stderr)
            result = {"error": printable(str(error))}
        except Exception as error:  # a method can fail in any way
            traceback.print_exc()
            result = {"error": printable(f"{type(error).__name__}: {error}")}
        write_json(path, result)
    return result


def done(cell: Cell, folder: Path, keep: bool) -> bool:
    """Whether a cell has a result, and the cleansed network if `keep` is set."""
    path = cell.path(folder)
    return "error" not in (read(path) or {"error": ""}) and (not keep or path.with_suffix(".ckpt").exists())


def fail(cell: Cell, folder: Path, reason: str) -> None:
    """Record the reason of a failure, unless the cell has a result."""
    path = cell.path(folder)
    with alone(folder, cell.key):
        if "error" in (read(path) or {"error": ""}):
            write_json(path, {"error": printable(reason)})


def read(path: Path) -> dict[str, Any] | None:
    """Read a result; None if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


@contextmanager
def alone(folder: Path, key: str) -> Iterator[Path]:
    """An empty scratch folder that one process at a time can use; it is removed afterwards."""
    scratch = folder / "unfinished" / key
    with FileLock(f"{scratch}.lock"):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def tidy(folder: Path, key: str) -> None:
    """Remove the scratch folder of a process that was killed after it wrote its result."""
    if (folder / "unfinished" / key).exists():
        with alone(folder, key):
            pass
