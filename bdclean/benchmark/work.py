"""One cell of a benchmark, from the suspect to the result; any number of processes may try."""

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
from bdclean.reporting.files import write_json
from bdclean.reporting.results import Cleansing

SHORT = (
    "--trainer.limit_val_batches=0",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_checkpointing=false",
)
"""What nobody looks at is left out, and does not count as time of the method."""


@dataclass(frozen=True)
class Command:
    """The command line; both raise InputError if something is wrong with the words.

    Attributes:
        run: Runs some words, and returns a typed result.
        check: Refuses words that certainly are wrong, without running them.
    """

    run: Callable[[Sequence[str]], object]
    check: Callable[[Sequence[str]], None]


def alone_in(folder: Path) -> tuple[str, ...]:
    """Options of one process on one device without logs: other processes would start the benchmark anew."""
    return (
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.devices=1",
        "--trainer.num_nodes=1",
        f"--trainer.default_root_dir={folder}",
    )


def train(suspect: Suspect, folder: Path, command: Command) -> Path:
    """Train a suspect and the one that it starts from, unless that was done; wait where another process is at it.

    Returns:
        Its checkpoint.
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
        except Exception as error:  # anything may be wrong with a method, a suspect or images
            traceback.print_exc()
            result = {"error": printable(f"{type(error).__name__}: {error}")}
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
