"""ACC, ASR, RA and agreement of a network, with what is known of their accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bdclean.metrics import Share


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of a figure.

    Attributes:
        low: Its lower end, in percent.
        high: Its upper end, in percent.
        images: Of how many images the figure is.
    """

    low: float
    high: float
    images: int

    def to_json(self) -> dict[str, float]:
        """As plain values."""
        return {"low": self.low, "high": self.high, "images": self.images}


@dataclass(frozen=True)
class Figure:
    """A share of images.

    Attributes:
        percent: With two decimals; None if it cannot be known.
        interval: None if it is not known of how many images the figure is.
    """

    percent: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Figures:
    """How a network does on the test images, as `bdclean.metrics` defines the figures.

    Attributes:
        acc: On clean images.
        asr: On triggered images.
        ra: On triggered images.
        agreement: With the suspect; None for a suspect.
    """

    acc: Figure = Figure()
    asr: Figure = Figure()
    ra: Figure = Figure()
    agreement: Figure | None = None

    def named(self) -> dict[str, Figure]:
        """The figures by their names, without an agreement that was not measured."""
        known = {"acc": self.acc, "asr": self.asr, "ra": self.ra, "agreement": self.agreement}
        return {name: figure for name, figure in known.items() if figure is not None}

    def percents(self) -> dict[str, float | None]:
        """The figures by their names, in percent."""
        return {name: figure.percent for name, figure in self.named().items()}

    def intervals(self) -> dict[str, dict[str, float] | None]:
        """Their intervals as plain values."""
        found = {name: figure.interval for name, figure in self.named().items()}
        return {name: None if interval is None else interval.to_json() for name, interval in found.items()}


def measured(tested: Iterable[Mapping[str, float]], counted: Mapping[str, Share | None]) -> Figures:
    """The figures of a test.

    Args:
        tested: What Lightning's `test` returns.
        counted: Of how many images each figure is; an agreement is among them if it was measured.
    """
    merged = {name: value for part in tested for name, value in part.items()}
    names = ("acc", "asr", "ra", *(("agreement",) if "agreement" in counted else ()))
    return Figures(**{name: _figure(merged.get(f"test/{name}", math.nan), counted.get(name)) for name in names})


def _figure(value: float, share: Share | None) -> Figure:
    percent = round(float(value), 2) if math.isfinite(value) else None
    if share is None:
        return Figure(percent)
    low, high = share.interval
    return Figure(percent, Interval(round(low, 2), round(high, 2), share.images))
