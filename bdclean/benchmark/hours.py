"""Estimate the duration of a benchmark before it starts."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import torch

from bdclean.benchmark.grid import Cell, Suspect, arguments
from bdclean.benchmark.work import Command, Estimate, run_alone
from bdclean.errors import InputError

FACTS = ("arch", "num_classes", "image_size", "mean", "std", "stem", "arch_kwargs")
"""Options of a suspect that its weights do not determine."""


def estimate(suspects: Iterable[Suspect], cells: Iterable[Cell], command: Command) -> float:
    """Estimate how long one process takes for a benchmark, without preparations of attacks, in seconds.

    The networks have random weights, so it does not matter which suspects are trained already. Suspects that differ
    only in their seed are timed once, and a method is timed once for each network and set of images. Commands that
    fail count as 0: they fail again when they run.

    Args:
        suspects: The suspects that have to be trained.
        cells: The cells that have to be run.
        command: The command line.
    """
    trained: dict[tuple[str, str], Estimate | None] = {}
    cleansed: dict[tuple[str, str, str], Estimate | None] = {}

    def of_suspect(suspect: Suspect) -> Estimate | None:
        if (name := (suspect.name, suspect.network)) not in trained:
            trained[name] = _of(["fit", *suspect.arguments], place, command)
        return trained[name]

    def of_cell(cell: Cell) -> Estimate | None:
        if (name := (cell.method, cell.suspect.network, cell.images)) not in cleansed:
            cleansed[name] = _of_cell(cell, of_suspect(cell.suspect), place, command)
        return cleansed[name]

    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()):
        place = Path(scratch)
        estimates = [*map(of_suspect, suspects), *map(of_cell, cells)]
    return sum(one.seconds for one in estimates if one is not None)


def _of_cell(cell: Cell, fitted: Estimate | None, place: Path, command: Command) -> Estimate | None:
    """Estimate a cell from an untrained suspect."""
    if fitted is None:
        return None
    untrained = place / "untrained.pth"
    torch.save(fitted.model.network.state_dict(), untrained)
    known = {f"model.{name}": value for name in FACTS if (value := fitted.model.hparams.get(name)) is not None}
    words = arguments({"data.source": fitted.source} | known)
    return _of(["cleanse", *words, *cell.arguments, f"--ckpt={untrained}"], place, command)


def _of(words: list[str], place: Path, command: Command) -> Estimate | None:
    try:
        return run_alone(command.estimate, words, place)
    except InputError:
        return None
