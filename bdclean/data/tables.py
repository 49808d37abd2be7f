"""Tables of images and their classes: CSV, TSV, or two words per line."""

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
"""Maximum size of a table, in bytes; larger files are not read."""
_FILES = ("path", "filepath", "imagepath", "imgpath", "filename", "file")
IMAGE_COLUMNS = (*_FILES, "image", "imagename", "imageid", "img", "imgname", "id", "name")
"""Titles of the column with the name of the image, in order of preference, reduced to lower-case letters."""
LABEL_COLUMNS = ("label", "class", "classid", "classname", "category", "categoryid", "target", "predictionstring")
"""Titles of the column with the class, in order of preference, reduced to lower-case letters."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
"""Control characters, which do not occur in text."""


@dataclass(frozen=True)
class Table:
    """The rows of a table that can be read.

    Attributes:
        titles: Cells of the first line, which may or may not be a header.
        rows: Line number and cells of each row, without a recognised header.
        image: Index of the column with the name of the image.
        label: Index of the column with the class; None if unknown.
        known: Whether a header names both columns.
        boxes: Whether the cell with the class also has bounding boxes, as in ImageNet.
        broken: The line from which on the table is unreadable, and the reason; empty if the whole table is readable.
    """

    titles: list[str]
    rows: list[tuple[int, list[str]]]
    image: int
    label: int | None
    known: bool
    boxes: bool
    broken: str


def read_table(file: Path) -> Table:
    """Read a file as a table; an unreadable or too large file gives an empty table."""
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
    """Whether a cell ends with the suffix of an image file."""
    return os.path.splitext(cell.rstrip())[1].lower() in SUFFIXES


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _rows(file: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Line number and cells of each non-empty row, and the position and reason of an error (empty without one)."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return [], ""
        # File names may not be UTF-8.
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
