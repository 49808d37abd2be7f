"""Tables of the results of a benchmark."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from bdclean.benchmark.grid import Cell
from bdclean.checkpoint import write_text
from bdclean.metrics import defense_effectiveness_rate
from bdclean.reporting.files import write_csv
from bdclean.reporting.sections import Section, Text
from bdclean.tables import Table

IDENTITY = ("suspect", "network", "images", "method", "seed")
FIGURES = ("acc", "asr", "ra", "agreement", "der", "acc_lost", "seconds", "peak_memory")
LEGEND = (
    "ACC: accuracy on clean test images, %. ASR: share of triggered test images that are predicted as the target "
    "class, %. RA: share of these that are predicted as their true class, %. DER: 50 plus half of the fall in ASR "
    "minus half of the fall in ACC; 100 is a removed backdoor at no cost, 50 no effect.",
    "ACC lost: points of ACC; clean: of suspects without a backdoor, which the other columns leave out. s: seconds of "
    "the cleansing alone. MiB: peak memory of the process, or of the GPU. Values are means over suspects and seeds, ± "
    "the standard deviation.",
)
"""Explanation of the tables, in paragraphs."""
WEAK_ASR = 50.0
"""ASR in percent below which an attack did not take."""
WEAK_ACC = 30.0
"""ACC in percent below which a suspect has hardly learned anything."""


@dataclass(frozen=True)
class Row:
    """The result of a cell: figures in percent, seconds and MiB, each None if unknown, or the reason of its failure.

    Attributes:
        suspect: Name of the suspect.
        network: Name of its architecture.
        images: Name of the unlabeled images.
        method: Name of the method.
        seed: Seed of all random numbers.
        backdoored: Whether the suspect has a backdoor; None if the cell failed.
        suspect_acc: ACC of the suspect.
        suspect_asr: ASR of the suspect.
        suspect_ra: RA of the suspect.
        acc: ACC of the cleansed network.
        asr: ASR of the cleansed network.
        ra: RA of the cleansed network.
        agreement: Agreement of both networks.
        der: The defense effectiveness rate.
        acc_lost: Decrease of ACC, in points.
        seconds: Time of the cleansing.
        peak_memory: Peak memory of the process or the GPU, in MiB.
        error: Reason of the failure, if the cell failed.
    """

    suspect: str
    network: str
    images: str
    method: str
    seed: int
    backdoored: bool | None = None
    suspect_acc: float | None = None
    suspect_asr: float | None = None
    suspect_ra: float | None = None
    acc: float | None = None
    asr: float | None = None
    ra: float | None = None
    agreement: float | None = None
    der: float | None = None
    acc_lost: float | None = None
    seconds: float | None = None
    peak_memory: float | None = None
    error: str | None = None

    @classmethod
    def read(cls, cell: Cell, result: Mapping[str, Any]) -> Row:
        """Make a row from the JSON of a cell."""
        suspect = cell.suspect
        row = cls(suspect.name, suspect.network, cell.images, cell.method, suspect.seed, error=result.get("error"))
        if row.error is not None:
            return row
        before, after = result["suspect"], result["cleansed"]
        backdoored = result["attack"] is not None
        acc_lost = der = None
        if None not in (before["acc"], after["acc"]):
            acc_lost = round(before["acc"] - after["acc"], 2)
            if None not in (before["asr"], after["asr"]) and backdoored:
                rate = defense_effectiveness_rate((before["acc"], before["asr"]), (after["acc"], after["asr"]))
                der = round(rate, 2)
        figures: dict[str, Any] = {f"suspect_{name}": value for name, value in before.items()} | after
        cost = {name: result[name] for name in ("seconds", "peak_memory")}
        return replace(row, backdoored=backdoored, acc_lost=acc_lost, der=der, **figures, **cost)

    @property
    def identity(self) -> tuple[str, ...]:
        """The values that identify the cell."""
        return tuple(str(getattr(self, name)) for name in IDENTITY)

    @property
    def figures(self) -> dict[str, float]:
        """The known figures, by name."""
        return {name: value for name in FIGURES if (value := getattr(self, name)) is not None}


COLUMNS = tuple(field.name for field in fields(Row))


def mean(found: Sequence[Row], name: str) -> str:
    """The mean of a figure over rows, with its standard deviation if there are several; a dash without values."""
    values = [value for row in found if (value := getattr(row, name)) is not None]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def groups(found: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by the values of some columns, in order of appearance."""
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        parts.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return parts


def sections(found: Sequence[Row]) -> tuple[Section, ...]:
    """Sections: legend, warnings, averages per method, ACC / ASR per method and suspect, failures, all figures."""
    failed = [row for row in found if row.error is not None]
    several = groups(found, "network", "images")
    result = [Section("Legend", (Text("\n".join(LEGEND), explains=True),))]
    if lines := warnings(found):
        result.append(Section("Warnings", (Text("\n".join(lines)),)))
    for (network, images), part in several.items():
        title = f" ({network}, {images} images)" if len(several) > 1 else ""
        result.append(Section(f"Methods{title}", (_averages(part),)))
        result.append(Section(f"ACC / ASR{title}", (_matrix(part),)))
    if failed:
        lines = [f"- {', '.join(row.identity)}: {row.error}" for row in failed]
        result.append(Section("Failed", (Text("\n".join(lines), explains=True),)))
    result.append(Section("All figures", (_all_figures([row for row in found if row.error is None]),)))
    return tuple(result)


def warnings(found: Sequence[Row]) -> list[str]:
    """A line for each suspect whose rows mean little: the attack did not take, or the network is close to chance."""
    lines = []
    for row in _once(found):
        name = f"{row.suspect} ({row.network}, seed {row.seed})"
        if row.backdoored and row.suspect_asr is not None and row.suspect_asr < WEAK_ASR:
            lines.append(f"{name}: the attack did not take, ASR {row.suspect_asr:.1f} %")
        if row.suspect_acc is not None and row.suspect_acc < WEAK_ACC:
            lines.append(f"{name}: the accuracy of the suspect is close to chance, ACC {row.suspect_acc:.1f} %")
    return lines


def markdown(found: Sequence[Section]) -> str:
    """Sections as Markdown, without their pictures."""
    shown = (
        [f"## {section.title}"]
        + [
            part.text if isinstance(part, Text) else part.markdown()
            for part in section.parts
            if isinstance(part, Text | Table)
        ]
        for section in found
    )
    return "\n\n".join(text for texts in shown for text in texts) + "\n"


def _averages(part: Sequence[Row]) -> Table:
    header = ("method", "ACC", "ACC lost", "ASR", "RA", "DER", "ACC lost, clean", "s", "MiB", "done")
    before = _once([row for row in part if row.backdoored] or part)
    acc, asr, ra = (mean(before, f"suspect_{name}") for name in ("acc", "asr", "ra"))
    rows = [("(suspects)", acc, "", asr, ra, *[""] * 5)]
    for (method,), cells in groups(part, "method").items():
        parts = groups(cells, "backdoored")
        backdoored, clean = parts.get((True,), []), parts.get((False,), [])
        done = f"{len(backdoored) + len(clean)} of {len(cells)}"
        figures = [mean(backdoored, name) for name in ("acc", "acc_lost", "asr", "ra", "der")]
        rows.append(
            (method, *figures, mean(clean, "acc_lost"), mean(cells, "seconds"), mean(cells, "peak_memory"), done)
        )
    return Table(header, tuple(rows))


def _matrix(part: Sequence[Row]) -> Table:
    suspects = groups(part, "suspect")
    pairs = (_once(rows) for rows in suspects.values())
    rows = [("(suspects)", *(f"{mean(one, 'suspect_acc')} / {mean(one, 'suspect_asr')}" for one in pairs))]
    for (method,), of_method in groups(part, "method").items():
        cells = groups(of_method, "suspect")
        found = (cells.get(name, []) for name in suspects)
        rows.append((method, *(f"{mean(cell, 'acc')} / {mean(cell, 'asr')}" for cell in found)))
    return Table(("method", *(name for (name,) in suspects)), tuple(rows))


def _once(found: Sequence[Row]) -> list[Row]:
    """One row for each suspect with at least one completed cell."""
    good = [row for row in found if row.error is None]
    return [rows[0] for rows in groups(good, "suspect", "network", "seed").values()]


def _all_figures(found: Sequence[Row]) -> Table:
    titles = ("ACC", "ASR", "RA", "agreement", "DER", "ACC lost", "s", "MiB")
    rows = [
        (*names, str(len(cell)), *(mean(cell, name) for name in FIGURES))
        for names, cell in groups(found, *IDENTITY[:4]).items()
    ]
    return Table(("suspect", "network", "images", "method", "seeds", *titles), tuple(rows))


def write(found: Sequence[Row], folder: Path, more: Sequence[Section] = ()) -> None:
    """Write `results.csv`, `results.md` with further sections at its end, and the results for TensorBoard's HParams."""
    values = [["" if (value := getattr(row, name)) is None else value for name in COLUMNS] for row in found]
    write_csv(folder / "results.csv", COLUMNS, values)
    write_text(folder / "results.md", markdown((*sections(found), *more)))
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for row in found:
        if row.error is None:
            logger = TensorBoardLogger(folder, "tensorboard", ".".join(row.identity), default_hp_metric=False)
            figures = {f"final/{name}": value for name, value in row.figures.items()}
            logger.log_hyperparams(dict(zip(IDENTITY, row.identity, strict=True)), figures)
            logger.finalize("success")
