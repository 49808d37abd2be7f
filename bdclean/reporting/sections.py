"""What reports consist of, whatever shows them: a new element of a report is a function in one of the lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from matplotlib.figure import Figure
from torch import Tensor

from bdclean.tables import Table

Result = TypeVar("Result")


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: What it says.
        explains: Whether it says how to read the rest.
    """

    text: str
    explains: bool = False


@dataclass(frozen=True)
class Picture:
    """An image or a plot.

    Attributes:
        title: What stands below it; nothing if empty.
        draw: Draws it: an image, (3, height, width), or a figure of matplotlib.
        tag: Under which name TensorBoard has it; empty if it does not.
    """

    title: str
    draw: Callable[[], Tensor | Figure]
    tag: str = ""


Part = Text | Table | Picture


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: What stands above it.
        parts: What it shows.
        brief: What a terminal shows in its place.
        tag: Under which name TensorBoard has its tables and paragraphs; empty if it does not.
    """

    title: str
    parts: tuple[Part, ...]
    brief: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Banner:
    """A sentence that nobody may miss.

    Attributes:
        text: The sentence.
        kind: What it means.
    """

    text: str
    kind: Literal["good", "unknown", "warning"]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: What stands above it.
        subtitle: What it is about.
        sections: Its parts.
        banners: What stands before everything on a page.
        closing: What a terminal ends with.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    banners: tuple[Banner, ...] = ()
    closing: str = ""


def sections_of(result: Result, functions: Sequence[Callable[[Result], Section | None]]) -> tuple[Section, ...]:
    """The sections of a result that have something to show."""
    return tuple(section for function in functions if (section := function(result)) is not None)
