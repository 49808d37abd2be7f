"""Tables that name images and their classes, as CSV, TSV or words in lines."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bdclean.decoding import SUFFIXES

MOST_BYTES = 2**28
"""A larger file is not read."""
_FILES = ("path", "filepath", "imagepath", "imgpath", "filename", "file")
IMAGE_COLUMNS = (*_FILES, "image", "imagename", "imageid", "img", "imgname", "id", "name")
"""Columns that name the image, the surest first, in small letters without anything between them."""
LABEL_COLUMNS = ("label", "class", "classid", "classname", "category", "categoryid", "target", "predictionstring")
"""Columns that name its class, in the same way."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
"""Characters that no text has."""


@dataclass(frozen=True)
class Table:
    """The rows of a table that can be read.

    Attributes:
        titles: The cells of its first line, which may be a header or not.
        rows: The number of the line and the cells of each row, without a header that is known as one.
        image: The column that names the image.
        label: The column that names its class; None if there is no telling.
        known: Whether a header names both columns.
        boxes: Whether the cell of the class goes on with the boxes of objects, as ImageNet's do.
        broken: The line at which the table cannot be read further, and why; empty if all of it can be read.
    """

    titles: list[str]
    rows: list[tuple[int, list[str]]]
    image: int
    label: int | None
    known: bool
    boxes: bool
    broken: str


def read_table(file: Path) -> Table:
    """Read a file as a table; a file that cannot be opened, or that is too large, is an empty one."""
    rows, broken = _rows(file)
    titles = rows[0][1] if rows else []
    header = [re.sub(r"[^a-z]", "", cell.lower()) for cell in titles]
    image, label = _column(header, IMAGE_COLUMNS), _column(header, LABEL_COLUMNS)
    if image is None:
        return Table(titles, rows, 0, 1, False, False, broken)
    known = label is not None
    if label is None and len(header) == 2:
        label = 1 - image
    boxes = label is not None and header[label] == "predictionstring"
    return Table(titles, rows[1:], image, label, known, boxes, broken)


def names_image(cell: str) -> bool:
    """Whether a cell ends as the names of images do."""
    return os.path.splitext(cell.rstrip())[1].lower() in SUFFIXES


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _rows(file: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """The number and the cells of each line that is not empty, and where and why the file cannot be read further."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return [], ""
        # Names of files need not be UTF-8.
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError:
        return [], ""
    broken = ""
    if odd := CONTROL.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        broken = f"line {line} has the character {odd[0]!a}: save the table as UTF-8 text"
        text = text[: text.rfind("\n", 0, odd.start()) + 1]
    lines = io.StringIO(text)
    first = next((line for line in lines if line.strip()), "")
    lines.seek(0)
    delimiter = next((mark for mark in "\t;," if mark in first), None)
    if delimiter is None:
        return [(number, line.rsplit(None, 1)) for number, line in enumerate(lines, 1) if line.strip()], broken
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = []
    start = 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append((start, row))
            start = reader.line_num + 1
    except csv.Error as error:
        broken = f"line {start} cannot be read ({error})"
    return rows, broken
