"""The parts of reports, independent of their form: a new section is a function in one of the lists of sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from matplotlib.figure import Figure
from torch import Tensor

from bdclean.tables import Table

Result = TypeVar("Result")
Kind = Literal["good", "unknown", "warning"]
"""What a verdict means, and so its colour."""


@dataclass(frozen=True)
class Text:
    """A paragraph, or several, one a line.

    Attributes:
        text: The paragraph.
        explains: Whether it explains other parts.
    """

    text: str
    explains: bool = False


@dataclass(frozen=True)
class Picture:
    """An image or a plot.

    Attributes:
        title: Caption below it; none if empty.
        draw: Draws it: an image, (3, height, width), or a figure of matplotlib.
        tag: Its name in TensorBoard; empty if it is not shown there.
    """

    title: str
    draw: Callable[[], Tensor | Figure]
    tag: str = ""


@dataclass(frozen=True)
class Tile:
    """A figure that is seen first.

    Attributes:
        title: Its name.
        value: After cleansing, with its unit.
        before: Before cleansing, with its unit; empty if there is none.
        note: Its interval and its number of images.
    """

    title: str
    value: str
    before: str = ""
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Figures side by side.

    Attributes:
        tiles: The figures.
    """

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Folded:
    """Parts that a page shows on demand.

    Attributes:
        title: What stands in their place.
        parts: The parts.
    """

    title: str
    parts: tuple[Text | Table | Picture, ...]


Part = Text | Table | Picture | Tiles | Folded


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its heading.
        parts: Its content.
        brief: Text that a terminal shows instead.
        tag: Name of its tables and paragraphs in TensorBoard; empty if they are not shown there.
    """

    title: str
    parts: tuple[Part, ...]
    brief: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Banner:
    """The verdict on top of a page.

    Attributes:
        text: A sentence.
        kind: What it means.
        title: The verdict in a few words, in larger type.
    """

    text: str
    kind: Kind
    title: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: Its heading.
        subtitle: The networks that it is about.
        sections: Its parts.
        banners: The verdict and warnings, on top.
        closing: Last lines in a terminal.
        sortable: Whether tables can be sorted and filtered.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    banners: tuple[Banner, ...] = ()
    closing: str = ""
    sortable: bool = False


def sections_of(result: Result, functions: Sequence[Callable[[Result], Section | None]]) -> tuple[Section, ...]:
    """The sections of a result that have something to show."""
    return tuple(section for function in functions if (section := function(result)) is not None)
