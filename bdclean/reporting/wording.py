"""Figures as text."""

from __future__ import annotations

from collections.abc import Mapping

from bdclean.reporting.measures import Figure, Figures
from bdclean.tables import Cell, Table

WIDE = 1.0
"""Percent: from this half width up, the 95 % interval of a figure is given in a terminal."""


def percent(value: float | None, unknown: str = "\u2013") -> str:
    """A share in percent, or a dash."""
    return unknown if value is None else f"{value:.2f}"


def figures_table(networks: Mapping[str, Figures]) -> Table:
    """A row a network, a column a figure.

    Args:
        networks: What each network is called, and its figures.
    """
    names = list(dict.fromkeys(name for figures in networks.values() for name in figures.named()))
    rows: list[tuple[str | Cell, ...]] = []
    for network, figures in networks.items():
        own = figures.named()
        rows.append((network, *(_cell(own.get(name, Figure())) for name in names)))
    return Table(("", *map(_title, names)), tuple(rows))


def _cell(figure: Figure) -> Cell:
    interval = figure.interval
    note = f"{interval.low:.2f} to {interval.high:.2f}, {interval.images} images" if interval else ""
    return Cell(percent(figure.percent, "-"), note)


def _title(name: str) -> str:
    return name.upper() if len(name) < 4 else name


def wide_intervals(networks: Mapping[str, Figures]) -> list[str]:
    """A line for the terminal with the intervals of figures that are of few images, if there are any.

    Args:
        networks: The name of each network, which may be empty, and its figures.
    """
    found = [
        f"{network} {_title(name)} {one.low:.2f} to {one.high:.2f} "
        f"({one.images} image{'' if one.images == 1 else 's'})".strip()
        for network, figures in networks.items()
        for name, figure in figures.named().items()
        if (one := figure.interval) is not None and (one.high - one.low) / 2 >= WIDE
    ]
    return [f"95 % intervals of figures of few images: {', '.join(found)}."] if found else []
