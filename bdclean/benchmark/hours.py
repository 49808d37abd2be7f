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
    seconds = 0.0
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()):
        place = Path(scratch)
        for suspect in suspects:
            if (name := (suspect.name, suspect.network)) not in trained:
                trained[name] = _of(["fit", *suspect.arguments], place, command)
            seconds += _seconds(trained[name])
        for cell in cells:
            suspect = cell.suspect
            if (what := (cell.method, suspect.network, cell.images)) not in cleansed:
                if (name := (suspect.name, suspect.network)) not in trained:
                    trained[name] = _of(["fit", *suspect.arguments], place, command)
                cleansed[what] = _of_cell(cell, trained[name], place, command)
            seconds += _seconds(cleansed[what])
    return seconds


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


def _seconds(estimate: Estimate | None) -> float:
    return 0.0 if estimate is None else estimate.seconds
