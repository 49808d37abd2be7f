"""Results of a benchmark as tables."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from bdclean.benchmark.grid import Cell
from bdclean.checkpoint import write_text
from bdclean.metrics import defense_effectiveness_rate
from bdclean.report import write_csv

IDENTITY = ("suspect", "network", "images", "method", "seed")
FIGURES = ("acc", "asr", "ra", "agreement", "der", "acc_lost", "seconds", "peak_memory")
COLUMNS = (*IDENTITY, "backdoored", "suspect_acc", "suspect_asr", "suspect_ra", *FIGURES, "error")
Row = dict[str, Any]


def rows(results: Sequence[tuple[Cell, Mapping[str, Any]]]) -> list[Row]:
    """A row for each cell: what it is, its figures in percent, seconds and MiB, or why it has none."""
    return [_row(cell, result) for cell, result in results]


def _row(cell: Cell, result: Mapping[str, Any]) -> Row:
    suspect = cell.suspect
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"suspect": suspect.name, "network": suspect.network, "seed": suspect.seed}
    row |= {"images": cell.images, "method": cell.method, "error": result.get("error")}
    if row["error"] is not None:
        return row
    before, after = result["suspect"], result["cleansed"]
    row |= {f"suspect_{name}": value for name, value in before.items()} | dict(after)
    row |= {name: result[name] for name in ("seconds", "peak_memory")}
    row["backdoored"] = result["attack"] is not None
    if None not in (before["acc"], after["acc"]):
        row["acc_lost"] = round(before["acc"] - after["acc"], 2)
        if None not in (before["asr"], after["asr"]) and row["backdoored"]:
            rate = defense_effectiveness_rate((before["acc"], before["asr"]), (after["acc"], after["asr"]))
            row["der"] = round(rate, 2)
    return row


def mean(found: Sequence[Row], name: str) -> str:
    """The mean of a figure over rows, and its standard deviation where there are several; a dash for nothing."""
    values = [row[name] for row in found if row[name] is not None]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def groups(found: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some columns, in the order in which these appear."""
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        parts.setdefault(tuple(row[name] for name in names), []).append(row)
    return parts


def markdown(found: Sequence[Row]) -> str:
    """Everything as Markdown: averages of each method, ACC / ASR of each method and suspect, all figures, failures."""
    failed = [row for row in found if row["error"] is not None]
    good = [row for row in found if row["error"] is None]
    several = groups(found, "network", "images")
    parts = []
    for (network, images), part in several.items():
        title = f" ({network}, {images} images)" if len(several) > 1 else ""
        parts.append(f"## Methods{title}\n\n{_averages(part)}")
        parts.append(f"## ACC / ASR{title}\n\n{_matrix(part)}")
    parts.append(f"## All figures\n\n{_everything(good)}")
    if failed:
        lines = [f"- {', '.join(str(row[name]) for name in IDENTITY)}: {row['error']}" for row in failed]
        parts.append("## Failed\n\n" + "\n".join(lines))
    note = (
        "Means over suspects and seeds, ± the standard deviation. ACC, ASR, RA, agreement, DER in percent; seconds of "
        "the cleansing alone; memory is the peak of the process (of the GPU, where there is one) in MiB. Averages are "
        "over the backdoored suspects; what those lost that never were stands by itself."
    )
    return "\n\n".join([*parts, note]) + "\n"


def _averages(part: Sequence[Row]) -> str:
    header = ["method", "ACC", "ACC lost", "ASR", "RA", "DER", "ACC lost, never backdoored", "s", "MiB", "done"]
    before = _once([row for row in part if row["backdoored"]] or part)
    acc, asr, ra = (mean(before, f"suspect_{name}") for name in ("acc", "asr", "ra"))
    lines = [header, ["(suspects)", acc, "", asr, ra]]
    for (method,), own in groups(part, "method").items():
        parts = groups(own, "backdoored")
        backdoored, clean = parts.get((True,), []), parts.get((False,), [])
        good = len(backdoored) + len(clean)
        cells = [mean(backdoored, name) for name in ("acc", "acc_lost", "asr", "ra", "der")]
        more = [mean(clean, "acc_lost"), mean(own, "seconds"), mean(own, "peak_memory"), f"{good} of {len(own)}"]
        lines.append([method, *cells, *more])
    return _table(lines)


def _matrix(part: Sequence[Row]) -> str:
    suspects = groups(part, "suspect")
    lines = [["method", *(name for (name,) in suspects)]]
    pairs = (_once(rows) for rows in suspects.values())
    lines.append(["(suspects)", *(f"{mean(rows, 'suspect_acc')} / {mean(rows, 'suspect_asr')}" for rows in pairs)])
    for (method,), own in groups(part, "method").items():
        cells = groups(own, "suspect")
        found = (cells.get(name, []) for name in suspects)
        lines.append([method, *(f"{mean(cell, 'acc')} / {mean(cell, 'asr')}" for cell in found)])
    return _table(lines)


def _once(found: Sequence[Row]) -> list[Row]:
    """One row for each suspect, whatever the number of methods that were done."""
    good = [row for row in found if row["error"] is None]
    return [rows[0] for rows in groups(good, "suspect", "network", "seed").values()]


def _everything(found: Sequence[Row]) -> str:
    titles = ["ACC", "ASR", "RA", "agreement", "DER", "ACC lost", "s", "MiB"]
    lines = [["suspect", "network", "images", "method", "seeds", *titles]]
    for (suspect, network, images, method), cell in groups(found, *IDENTITY[:4]).items():
        lines.append([suspect, network, images, method, str(len(cell)), *(mean(cell, name) for name in FIGURES)])
    return _table(lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    width = len(lines[0])
    padded = [[*line, *[""] * (width - len(line))] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], ["---"] * width, *padded[1:]])


def write(found: Sequence[Row], folder: Path) -> None:
    """Write `results.csv`, `results.md`, and the same grid for TensorBoard's HParams."""
    values = [["" if row[name] is None else row[name] for name in COLUMNS] for row in found]
    write_csv(folder / "results.csv", COLUMNS, values)
    write_text(folder / "results.md", markdown(found))
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for row in found:
        if row["error"] is None:
            name = ".".join(str(row[name]) for name in IDENTITY)
            logger = TensorBoardLogger(folder, "tensorboard", name, default_hp_metric=False)
            figures = {f"final/{name}": row[name] for name in FIGURES if row[name] is not None}
            logger.log_hyperparams({name: str(row[name]) for name in IDENTITY}, figures)
            logger.finalize("success")
