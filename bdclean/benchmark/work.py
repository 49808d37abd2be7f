"""One cell of a benchmark, from the suspect to the result; any number of processes may try."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from filelock import FileLock

from bdclean.benchmark.grid import Cell, Suspect
from bdclean.report import write_json

Command = Callable[[list[str]], None]
"""The command line: ends in SystemExit if something is wrong, after one line on standard error."""


def train(suspect: Suspect, folder: Path, command: Command) -> Path:
    """Train a suspect, unless that was done; wait where another process is at it.

    Returns:
        Its checkpoint.
    """
    path = suspect.path(folder)
    with _alone(folder, suspect.key) as scratch:
        if not path.exists():
            output = str(scratch / "suspect.ckpt")
            _call(command, ["fit", *suspect.arguments, *_beside(scratch), "--output", output])
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
    with _alone(folder, cell.key) as scratch:
        if (result := read(path)) is not None and "error" not in result:
            return result
        output = scratch / "cleansed.ckpt"
        try:
            words = ["--ckpt", str(train(cell.suspect, folder, command)), "--output", str(output)]
            _call(command, ["cleanse", *cell.arguments, *_beside(scratch), *words])
            result = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
            if keep:
                os.replace(output, path.with_suffix(".ckpt"))
        except Exception as error:  # anything may be wrong with a method, a suspect or images
            result = {"error": str(error) or type(error).__name__}
        write_json(path, result)
    return result


def read(path: Path) -> dict[str, Any] | None:
    """A result that was written; None if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


@contextmanager
def _alone(folder: Path, key: str) -> Iterator[Path]:
    """A folder for what is half done, of one process at a time; what one left that was killed is gone."""
    place = folder / "unfinished" / key
    place.parent.mkdir(exist_ok=True)
    with FileLock(f"{place}.lock"):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _beside(scratch: Path) -> list[str]:
    """Lightning's own checkpoints go where what is half done lies."""
    return ["--trainer.default_root_dir", str(scratch)]


def _call(command: Command, words: Sequence[str]) -> None:
    """Run the command line in one process, without logs; what it has against it becomes an error."""
    own = {"--trainer.logger": "false", "--trainer.enable_progress_bar": "false", "--trainer.devices": "1"}
    words = [*words, *(word for option, value in own.items() if option not in words for word in (option, value))]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            command(words)
    except SystemExit as end:
        if end.code:
            lines = said.getvalue().strip().splitlines() or [f"bdclean {words[0]} ended with {end.code}"]
            raise RuntimeError(lines[-1].removeprefix("bdclean: error: ")) from end
