"""Render reports as self-contained HTML pages."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import torch
from torch import Tensor

from bdclean.checkpoint import write_text
from bdclean.reporting.figures import png, svg
from bdclean.reporting.sections import Folded, Page, Picture, Text, Tiles
from bdclean.tables import Cell, Table

NUMBER = re.compile(r"[<\d]|[-\u2013](\d|$| /)")
"""Beginning of a number, or a dash for a missing one."""


def write(path: Path, page: Page) -> None:
    """Write a page atomically."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """Render a page as HTML."""
    # Strings from an untrusted file are escaped, so that they are never markup.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bdclean.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {
        "text": lambda part: isinstance(part, Text),
        "table": lambda part: isinstance(part, Table),
        "cell": lambda cell: isinstance(cell, Cell),
        "tiles": lambda part: isinstance(part, Tiles),
        "folded": lambda part: isinstance(part, Folded),
    }
    environment.filters["texts"] = _texts
    return environment.get_template("page.html.j2").render(page=page, image=_image)


def _texts(table: Table) -> set[int]:
    """The columns of a table in which some cell does not begin like a number."""
    rows = [list(map(str, row)) for row in table.rows]
    return {
        column
        for column in range(len(table.header))
        if any(row[column] and not NUMBER.match(row[column]) for row in rows)
    }


def _image(picture: Picture) -> tuple[str, str]:
    """A picture's data URL and its CSS class: `pixels`, which stay sharp when enlarged, `drawing` or `plot`."""
    drawing = picture.draw()
    if isinstance(drawing, Tensor):
        return f"data:image/png;base64,{png(drawing)}", "drawing" if drawing.dtype == torch.uint8 else "pixels"
    return f"data:image/svg+xml;base64,{svg(drawing)}", "plot"
