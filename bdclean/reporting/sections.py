"""Parts of reports, independent of the output format. To add a section, add its function to a list of sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from matplotlib.figure import Figure
from torch import Tensor

from bdclean.tables import Table

Result = TypeVar("Result")
Kind = Literal["good", "unknown", "warning"]
"""Kind of a verdict, which decides its colour."""


@dataclass(frozen=True)
class Text:
    """Paragraphs, one per line.

    Attributes:
        text: The paragraphs.
        explains: Whether the text explains other parts; it is then set in a softer colour.
    """

    text: str
    explains: bool = False


@dataclass(frozen=True)
class Picture:
    """An image or a plot.

    Attributes:
        title: Caption; none if empty.
        draw: Function that returns an image, (3, height, width), or a matplotlib figure.
        tag: Tag in TensorBoard; empty if TensorBoard does not show the picture.
    """

    title: str
    draw: Callable[[], Tensor | Figure]
    tag: str = ""


@dataclass(frozen=True)
class Tile:
    """A headline figure.

    Attributes:
        title: Name of the figure.
        value: Value after cleansing, with its unit.
        before: Value before cleansing, with its unit; empty if there is none.
        note: Interval and number of images.
    """

    title: str
    value: str
    before: str = ""
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Tiles side by side.

    Attributes:
        tiles: The tiles.
    """

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Folded:
    """Parts that a page shows on a click.

    Attributes:
        title: Text to click on.
        parts: The hidden parts.
    """

    title: str
    parts: tuple[Text | Table | Picture, ...]


Part = Text | Table | Picture | Tiles | Folded


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Heading.
        parts: Content.
        brief: Text that the terminal shows instead of the parts.
        tag: Tag of the tables and paragraphs in TensorBoard; empty if TensorBoard does not show them.
    """

    title: str
    parts: tuple[Part, ...]
    brief: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Banner:
    """The verdict on top of a page.

    Attributes:
        text: One sentence.
        kind: Kind of the verdict.
        title: The verdict in a few words, in larger type.
    """

    text: str
    kind: Kind
    title: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: Heading.
        subtitle: The networks that the report is about.
        sections: The sections in their order.
        banners: The verdict and warnings, on top.
        closing: Last lines in the terminal.
        sortable: Whether tables can be sorted and filtered.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    banners: tuple[Banner, ...] = ()
    closing: str = ""
    sortable: bool = False


def sections_of(result: Result, functions: Sequence[Callable[[Result], Section | None]]) -> tuple[Section, ...]:
    """The sections of a result, without those that have no content."""
    return tuple(section for function in functions if (section := function(result)) is not None)
