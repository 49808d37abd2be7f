"""ACC, ASR, RA and agreement of a network, with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bdclean.metrics import Share


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of a figure.

    Attributes:
        low: Lower end, in percent.
        high: Upper end, in percent.
        images: Number of images that the figure was measured on.
    """

    low: float
    high: float
    images: int

    def to_json(self) -> dict[str, float]:
        """Convert to plain values for JSON."""
        return {"low": self.low, "high": self.high, "images": self.images}


@dataclass(frozen=True)
class Figure:
    """A share of images.

    Attributes:
        percent: Rounded to two decimals; None if it was not measured.
        interval: None if the number of images is unknown.
    """

    percent: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Figures:
    """Figures of a network on the test images, as `bdclean.metrics` defines them.

    Attributes:
        acc: Accuracy on clean images.
        asr: Attack success rate on triggered images.
        ra: Robust accuracy on triggered images.
        agreement: Agreement with the suspect; None for a suspect.
    """

    acc: Figure = Figure()
    asr: Figure = Figure()
    ra: Figure = Figure()
    agreement: Figure | None = None

    def named(self) -> dict[str, Figure]:
        """The figures by name; the agreement only if it was measured."""
        known = {"acc": self.acc, "asr": self.asr, "ra": self.ra, "agreement": self.agreement}
        return {name: figure for name, figure in known.items() if figure is not None}

    def percents(self) -> dict[str, float | None]:
        """The figures by name, in percent."""
        return {name: figure.percent for name, figure in self.named().items()}

    def intervals(self) -> dict[str, dict[str, float] | None]:
        """The intervals by name, as plain values for JSON."""
        found = {name: figure.interval for name, figure in self.named().items()}
        return {name: None if interval is None else interval.to_json() for name, interval in found.items()}


def measured(
    tested: Iterable[Mapping[str, float]], counted: Mapping[str, Share | None], stage: str = "test"
) -> Figures:
    """Collect the figures of a test or validation run.

    Args:
        tested: The return value of Lightning's `test` or `validate`.
        counted: Image counts of each figure; includes the agreement if it was measured.
        stage: `test` or `val`.
    """
    merged = {name: value for part in tested for name, value in part.items()}
    names = ("acc", "asr", "ra", *(("agreement",) if "agreement" in counted else ()))
    return Figures(**{name: _figure(merged.get(f"{stage}/{name}", math.nan), counted.get(name)) for name in names})


def _figure(value: float, share: Share | None) -> Figure:
    percent = round(float(value), 2) if math.isfinite(value) else None
    if share is None:
        return Figure(percent)
    low, high = share.interval
    return Figure(percent, Interval(round(low, 2), round(high, 2), share.images))
