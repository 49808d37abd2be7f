"""Figures as text, and the explanations in reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bdclean.reporting.measures import Figure, Figures
from bdclean.reporting.sections import Tile
from bdclean.tables import Cell, Table

WIDE = 1.0
"""Half width of a 95 % interval in percent, from which on the terminal shows the interval."""
IN_PERCENT = "All figures in percent, on the {} images."
"""Last line of a table in the terminal, to format with the name of the images."""
EXPLAINED = (
    "ACC: accuracy on clean test images. ASR: share of triggered test images, of classes other than the target, that "
    "are predicted as the target class. RA: share of these that are predicted as their true class. Agreement: share of "
    "images for which suspect and cleansed network predict the same class. Intervals are 95 % (Wilson). ACC needs "
    "labelled test images; ASR and RA also need the trigger."
)
SCAN_EXPLAINED = (
    "p-value: probability that some class of a clean network stands out as far. ASR of the recovered trigger: share of "
    "images of other classes that the recovered trigger flips to the class."
)
LIMITS = (
    "A scan that finds nothing is no proof: triggers that differ between images, dithering and clean-label attacks "
    "have been missed.",
    "A scan searches for one target class. With two classes it compares the network with a re-initialised copy, and "
    "misses more. It can report a backdoor in a clean network.",
    "An attacker who can train the cleansed network further brings the backdoor back within a few steps.",
    "All figures were measured on these images. Figures of images unlike the training images say less.",
)
"""Limits of a scan and of the figures, one paragraph each."""


def percent(value: float | None, unknown: str = "\u2013") -> str:
    """A share in percent, or a dash."""
    return unknown if value is None else f"{value:.2f}"


def figures_table(networks: Mapping[str, Figures]) -> Table:
    """A table with one row per network and one column per figure.

    Args:
        networks: Figures of each network, by name.
    """
    named = [pair for figures in networks.values() for pair in figures.named().items()]
    # Leave out columns that would hold only dashes.
    known = {name for name, figure in named if figure.percent is not None}
    names = [name for name in dict.fromkeys(name for name, _ in named) if name in known]
    rows: list[tuple[str | Cell, ...]] = []
    for network, figures in networks.items():
        by_name = figures.named()
        rows.append((network, *(_cell(by_name.get(name, Figure())) for name in names)))
    return Table(("", *map(title, names)), tuple(rows))


def figure_tile(name: str, figure: Figure, before: Figure | None) -> Tile:
    """A figure as a tile.

    Args:
        name: Title of the tile.
        figure: The figure after cleansing.
        before: The figure before cleansing; None if there was none.
    """
    interval = figure.interval
    note = f"{interval.low:.1f} to {interval.high:.1f} %, {interval.images:,} images" if interval else ""
    known = before is not None and before.percent is not None
    return Tile(name, f"{percent(figure.percent)} %", f"{percent(before.percent)} %" if before and known else "", note)


def _cell(figure: Figure) -> Cell:
    interval = figure.interval
    note = f"{interval.low:.2f} to {interval.high:.2f}, {interval.images:,} images" if interval else ""
    return Cell(percent(figure.percent, "-"), note)


def detectors(count: int) -> str:
    """A number of detectors, as text."""
    return f"{count} detector{'' if count == 1 else 's'}"


def title(name: str) -> str:
    """Title of a figure in reports."""
    return name.upper() if len(name) < 4 else name


def wide_intervals(networks: Mapping[str, Figures]) -> list[str]:
    """A line for the terminal with the intervals of figures that were measured on few images, if there are any.

    Args:
        networks: Figures of each network, by name, which may be empty.
    """
    found = [
        f"{network} {title(name)} {one.low:.2f} to {one.high:.2f} "
        f"({one.images} image{'' if one.images == 1 else 's'})".strip()
        for network, figures in networks.items()
        for name, figure in figures.named().items()
        if (one := figure.interval) is not None and (one.high - one.low) / 2 >= WIDE
    ]
    return [f"95 % intervals of figures with few images: {', '.join(found)}."] if found else []


def left_out_line(parts: Sequence[str]) -> str:
    """A sentence with the parts that were left out to keep a time limit."""
    return f"Left out, to keep the time limit: {', '.join(parts)}."
