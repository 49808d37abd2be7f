"""Reports as pages that need no other file."""

from __future__ import annotations

from pathlib import Path

import jinja2
import torch
from torch import Tensor

from bdclean.checkpoint import write_text
from bdclean.reporting.figures import png, svg
from bdclean.reporting.sections import Folded, Page, Picture, Text, Tiles
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
        "tiles": lambda part: isinstance(part, Tiles),
        "folded": lambda part: isinstance(part, Folded),
    }
    return environment.get_template("page.html.j2").render(page=page, image=_image)


def _image(picture: Picture) -> tuple[str, str]:
    """A picture as the address of its data, and its kind: `pixels`, which stay sharp when enlarged, or `plot`."""
    found = picture.draw()
    if isinstance(found, Tensor):
        return f"data:image/png;base64,{png(found)}", "plot" if found.dtype == torch.uint8 else "pixels"
    return f"data:image/svg+xml;base64,{svg(found)}", "plot"
