"""Write results as JSON and CSV files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bdclean.checkpoint import write_text

RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a cell that spreadsheets interpret as a formula."""


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report atomically."""
    write_text(path, json.dumps(report, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _inert(cell: object) -> object:
    """Make a cell safe for spreadsheets: a single line, with an apostrophe in front if it looks like a formula."""
    if not isinstance(cell, str):
        return cell
    prefix = "'" if cell.startswith(RUN_BY_SPREADSHEETS) else ""
    return prefix + "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cell)
