"""Results as JSON and CSV files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bdclean.checkpoint import write_text

RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that a spreadsheet takes for a formula."""


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report whole or not at all."""
    write_text(path, json.dumps(report, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _inert(cell: object) -> object:
    """A cell of one line that no spreadsheet runs: a text that begins like a formula gets an apostrophe before it."""
    if not isinstance(cell, str):
        return cell
    before = "'" if cell.startswith(RUN_BY_SPREADSHEETS) else ""
    return before + "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cell)
