"""Tables, independent of their rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NARROWEST = 9
"""Minimum width of a column of numbers in a terminal, in characters."""


@dataclass(frozen=True)
class Cell:
    """A cell with a note or a bar, which only a page shows.

    Attributes:
        text: Text that every rendering shows.
        note: Small print below it.
        bar: Length of a bar, in percent.
    """

    text: str
    note: str = ""
    bar: float | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Attributes:
        header: Titles of the columns. A terminal shows columns without a title as text, the others as numbers.
        rows: One cell per column each.
        groups: Titles above the header and the number of columns of each; only on pages.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()

    def markdown(self) -> str:
        """The table as Markdown, for files and logs."""
        rows = (self.header, *map(_texts, self.rows))
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(self.header), *lines[1:]])

    def plain(self) -> str:
        """The table for a terminal, texts aligned to the left and numbers to the right."""
        lines = (self.header, *map(_texts, self.rows))
        widths = [
            max([NARROWEST if title else 0, *map(len, column)])
            for title, column in zip(self.header, zip(*lines, strict=True), strict=True)
        ]
        padded = (
            [
                cell.rjust(width) if title else cell.ljust(width)
                for title, cell, width in zip(self.header, line, widths, strict=True)
            ]
            for line in lines
        )
        return "\n".join("  ".join(line).rstrip() for line in padded)


def _texts(row: Sequence[str | Cell]) -> tuple[str, ...]:
    return tuple(map(str, row))


Description = tuple[Table | str, ...]
"""Tables and sentences, in order."""


def markdown(description: Description) -> str:
    """A description as Markdown, for logs."""
    return "\n\n".join(part if isinstance(part, str) else part.markdown() for part in description)


def plain(description: Description) -> str:
    """A description for a terminal."""
    return "\n".join(part if isinstance(part, str) else part.plain() for part in description)
