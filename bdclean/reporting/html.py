"""Reports as pages that need no other file."""

from __future__ import annotations

from pathlib import Path

import jinja2
from torch import Tensor

from bdclean.checkpoint import write_text
from bdclean.reporting.figures import drawn, png
from bdclean.reporting.sections import Page, Picture, Text
from bdclean.tables import Cell, Table


def write(path: Path, page: Page) -> None:
    """Write a page, whole or not at all."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """A page as HTML."""
    # What a hostile file says is text here, never markup.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bdclean.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {
        "text": lambda part: isinstance(part, Text),
        "table": lambda part: isinstance(part, Table),
        "cell": lambda cell: isinstance(cell, Cell),
    }
    return environment.get_template("page.html.j2").render(page=page, image=_image)


def _image(picture: Picture) -> tuple[str, str]:
    """A picture as PNG in base 64, and what kind it is: `pixels`, which stay sharp when enlarged, or `plot`."""
    found = picture.draw()
    return (png(found), "pixels") if isinstance(found, Tensor) else (png(drawn(found)), "plot")
