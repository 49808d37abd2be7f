"""Run the missing cells of a benchmark, and write its tables and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from bdclean import first_ten, printable
from bdclean.benchmark import hours, page, published, tables, work
from bdclean.benchmark.engines import Engine, Local
from bdclean.benchmark.engines.base import Task
from bdclean.benchmark.grid import Cell, Suspect, make_grid
from bdclean.benchmark.rows import Row
from bdclean.checkpoint import write_text
from bdclean.engine.estimate import duration
from bdclean.errors import Given, InputError, within
from bdclean.exits import Interrupted

GRID = "grid.yaml"
"""Name of the configuration file that repeats a benchmark."""


def benchmark(
    suspects: Mapping[str, dict[str, Any]],
    methods: Mapping[str, dict[str, Any]],
    networks: Mapping[str, dict[str, Any]] | None = None,
    images: Mapping[str, dict[str, Any]] | None = None,
    seeds: Sequence[int] = (0,),
    folder: str = "runs/benchmark",
    jobs: int | None = None,
    keep_networks: bool = False,
    list: bool = False,
    cell: str | None = None,
    engine: Engine | None = None,
    *,
    command: work.Command,
) -> None:
    """Cleanse many suspects with many methods and compare the results.

    Suspects are trained once and kept. A cell, one method on one suspect, is run once, and its result is written
    atomically. When the command is repeated, it runs only missing and failed cells. At the end the folder has
    `results.csv`, `results.md`, `heatmap.png`, `scatter.png`, `index.html` with all of these, and logs for
    TensorBoard.

    Args:
        suspects: Required. Maps the name of each suspect to options of `bdclean fit`, without dashes: `{config:
            configs/badnet.yaml}`. `start` names another suspect, whose weights the training starts from. `only`, also
            in `methods`, `networks` and `images`, limits the combinations: `{methods: [CLP], seeds: [0]}`.
        methods: Required. Maps the name of each method to options of `bdclean cleanse`; option `method` is the name by
            default.
        networks: Maps the name of each network to options of `bdclean fit` that come after those of a suspect:
            `{model.arch: resnet20}`. By default one network, that of the suspects' options.
        images: Maps the name of each set of unlabeled images to options of `bdclean cleanse`: `{data.unlabeled:
            photos/}`. By default the images that were held out from the attacker.
        seeds: Each suspect is trained and cleansed once for each seed.
        folder: Folder for all files of the benchmark.
        jobs: Number of cells that run at once; by default as many as the engine has places for.
        keep_networks: Whether the cleansed networks are kept.
        list: Only print the command of each cell.
        cell: Run only this cell, in this process: a name that `--list` prints.
        engine: What runs the cells: `local` (processes of this machine), `slurm` or `ray`; by default `local`.
            `--engine.help NAME` describes one and its options.
        command: The command line.

    Raises:
        InputError: If an option is out of range, or contradicts another.
    """
    within("jobs", 1 if jobs is None else jobs, 1)
    if not folder:
        raise InputError("folder", "", "needs a name")
    path = Path(folder)
    parts = {
        "suspects": suspects,
        "methods": methods,
        "networks": networks or {"given": {}},
        "images": images or {"held-out": {}},
    }
    grid = make_grid(**parts, seeds=seeds)
    for one in grid:
        _check(command, "fit", one.suspect.arguments, Given("suspects", one.suspect.name))
        _check(command, "cleanse", one.arguments, Given("methods", one.method))
    selected = next((one for one in grid if one.key == cell), None)
    if cell is not None and selected is None:
        raise InputError("cell", cell, "no such cell")
    options = {name: {key: dict(value) for key, value in part.items()} for name, part in parts.items()}
    others = {"seeds": [*seeds], "folder": folder, "keep_networks": keep_networks}
    _make_folder(path, options | others if cell is None else None)
    repeat = ["bdclean", "benchmark", "--config", str(path / GRID)]
    if list:
        for one in grid:
            print(shlex.join([*repeat, "--cell", one.key]))
    elif selected is not None:
        result = work.cleanse(selected, path, command, keep_networks)
        if "error" in result:
            raise InputError("cell", cell, str(result["error"]))
    else:
        _run_missing(grid, path, engine or Local(), jobs, command, keep_networks)
        _report(grid, path, shlex.join(repeat))


def _make_folder(folder: Path, grid: Mapping[str, Any] | None) -> None:
    """Make the folder of a benchmark, and write the grid into it, unless it is None."""
    try:
        for name in ("suspects", "cells", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if grid is not None:
            write_text(folder / GRID, yaml.safe_dump(grid, sort_keys=False))
    except OSError as error:
        raise InputError("folder", folder, f"cannot be written ({error.strerror})") from error


def _report(grid: Sequence[Cell], folder: Path, command: str) -> None:
    """Write tables and pictures of all cells, and print the tables and the path of the page."""
    results = [(one, work.read(one.path(folder)) or {"error": "not done"}) for one in grid]
    failures = [str(result["error"]) for _, result in results if "error" in result]
    if len(failures) == len(results):
        raise InputError("folder", folder, f"every cell failed; the first error is: {failures[0]}")
    rows = [Row.read(one, result) for one, result in results]
    more = published.sections(rows, [result for _, result in results])
    tables.write(rows, folder, more)
    page.write(rows, folder, command, more)
    print((folder / "results.md").read_text(encoding="utf-8"))
    print(f"{folder / 'index.html'} shows all tables and plots.")


def _check(command: work.Command, subcommand: str, words: Sequence[str], what: Given) -> None:
    """Refuse options that are certainly wrong, before hours of work."""
    try:
        command.check([subcommand, *words])
    except InputError as error:
        raise InputError(*what, str(error)) from error


def _run_missing(
    grid: Sequence[Cell], folder: Path, engine: Engine, jobs: int | None, command: work.Command, keep: bool
) -> None:
    """Train the missing suspects, and run the missing cells."""
    cells = {one.key: one for one in grid if not work.done(one, folder, keep)}
    suspects = {one.key: one for cell in cells.values() for one in cell.suspect.chain if not one.path(folder).exists()}
    if cells:
        engine.connect()
        print(_announcement(suspects, cells, engine, command))
    logs = folder / "logs"
    tasks = [
        Task(key, logs / f"{key}.log", _needs(suspect.start, suspects), work.train, (suspect, folder, command))
        for key, suspect in suspects.items()
    ]
    for key, one in cells.items():
        needs = _needs(one.suspect, suspects)
        tasks.append(Task(key, logs / f"{key}.log", needs, work.cleanse, (one, folder, command, keep)))
    try:
        _run_tasks(tasks, cells, folder, engine, jobs, command)
    except KeyboardInterrupt as interruption:
        done = sum(work.done(one, folder, keep) for one in grid)
        message = f"{folder} has {done} of {len(grid)} cells and no tables; repeat the command to resume"
        raise Interrupted(message) from interruption


def _announcement(
    suspects: Mapping[str, Suspect], cells: Mapping[str, Cell], engine: Engine, command: work.Command
) -> str:
    what = f"{len(suspects)} suspects to train and {len(cells)} cells to run"
    if (devices := engine.devices()) is None:
        return what
    took = duration(hours.estimate(suspects.values(), cells.values(), command) / devices)
    return f"{what}: {took}, without preparations of attacks"


def _needs(suspect: Suspect | None, missing: Mapping[str, Suspect]) -> tuple[str, ...]:
    """Name of the task that trains a suspect, if it is not trained yet."""
    return () if suspect is None or suspect.key not in missing else (suspect.key,)


def _run_tasks(
    tasks: Sequence[Task],
    cells: Mapping[str, Cell],
    folder: Path,
    engine: Engine,
    jobs: int | None,
    command: work.Command,
) -> None:
    """Run tasks with a progress bar, and record the reason of each failed cell."""
    with tqdm(total=len(tasks), unit="cell", disable=None) as bar:
        for progress in engine.run(tasks, jobs, [command.run.__module__]):
            bar.set_description(first_ten([name.rpartition(".")[0] for name in progress.working]))
            if progress.ended is None:
                continue
            bar.update()
            name, reason = progress.ended.name, progress.failure
            if name in cells:
                if reason is not None:
                    work.fail(cells[name], folder, reason)
                reason = (work.read(cells[name].path(folder)) or {}).get("error")
            if bar.disable or reason is not None:
                bar.write(printable(f"{name.rpartition('.')[0]}: {reason or 'done'}"))
