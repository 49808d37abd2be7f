"""A table, before anybody has decided where it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NARROWEST = 9
"""Characters of a column of numbers in a terminal, at least."""


@dataclass(frozen=True)
class Cell:
    """A cell of which a page shows more than its text.

    Attributes:
        text: What every form of the table shows.
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
        rows: As many cells each.
        groups: Titles above the header, and how many columns each covers; on pages alone.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()

    def markdown(self) -> str:
        """For files and logs."""
        ruled = (self.header, *map(_texts, self.rows))
        lines = [f"| {' | '.join(line)} |" for line in ruled]
        return "\n".join([lines[0], "|" + "---|" * len(self.header), *lines[1:]])

    def plain(self) -> str:
        """For a terminal: columns side by side, texts to the left and numbers to the right."""
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
"""Tables and sentences in their order."""


def markdown(description: Description) -> str:
    """A description as Markdown, for logs and terminals."""
    return "\n\n".join(part if isinstance(part, str) else part.markdown() for part in description)
