"""Results of a benchmark, one row for each cell."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bdclean.benchmark.grid import Cell
from bdclean.metrics import defense_effectiveness_rate

IDENTITY = ("suspect", "network", "images", "method", "seed")
FIGURES = ("acc", "asr", "ra", "agreement", "der", "acc_lost", "seconds", "peak_memory")
WEAK_ASR = 50.0
"""ASR in percent below which an attack did not take."""
WEAK_ACC = 30.0
"""ACC in percent below which a suspect has hardly learned anything."""
NO_EFFECT = 50.0
"""DER of a network that was not changed, in percent."""


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


def parts(found: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by network and set of images, under what their titles end with; it is empty if there is one of each."""
    several = groups(found, "network", "images")
    return {
        f" ({network}, {images} images)" if len(several) > 1 else "": part
        for (network, images), part in several.items()
    }


def once(found: Sequence[Row]) -> list[Row]:
    """One row for each suspect with at least one completed cell."""
    good = [row for row in found if row.error is None]
    return [rows[0] for rows in groups(good, "suspect", "network", "seed").values()]


def comparable(found: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method on the same suspects and seeds, in the same order.

    Suspects without a backdoor, whose attack did not take or that hardly learned anything do not count. If methods were
    run on different suspects or seeds, those methods and suspects are compared that give most cells. A failed cell
    counts as a network that was not changed, as long as its method has some result.

    Args:
        found: Rows of one network and one set of images.
    """
    unchanged = {
        (row.suspect, row.seed): replace(
            row, acc=row.suspect_acc, asr=row.suspect_asr, ra=row.suspect_ra, der=NO_EFFECT, acc_lost=0.0
        )
        for row in found
        if row.backdoored and (row.suspect_asr or 0) >= WEAK_ASR and (row.suspect_acc or 0) >= WEAK_ACC
    }
    known = {
        name: {
            key: replace(unchanged[key], method=name) if row.error else row
            for row in cells
            if (key := (row.suspect, row.seed)) in unchanged
        }
        for (name,), cells in groups(found, "method").items()
        if any(row.backdoored for row in cells)
    }

    def sharing(cells: Collection[tuple[str, int]]) -> list[str]:
        return [name for name, own in known.items() if own.keys() >= set(cells)]

    common = max(known.values(), key=lambda cells: len(cells) * len(sharing(cells)), default={})
    return {name: [known[name][key] for key in common] for name in sharing(common)} if common else {}
