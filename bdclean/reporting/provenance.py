"""Provenance of a report: file, hash, command line, date, versions, device, seed."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from bdclean import __version__, escaped
from bdclean.reporting.sections import Section
from bdclean.tables import Table

CHUNK = 2**20
"""Bytes that are read and hashed at once."""


def provenance(path: str | None, device: str, output: str | None = None) -> Section:
    """The section with all that a reader needs to reproduce a result.

    Args:
        path: File of the suspect; None if it came from memory.
        device: Name of the device.
        output: File of the result.
    """
    rows = [("suspect", escaped(path) if path else "a network in memory")]
    if path is not None and (digest := sha256(path)) is not None:
        rows.append(("SHA-256", digest))
    if output is not None:
        rows.append(("result", escaped(output)))
    versions = f"bdclean {__version__}, torch {torch.__version__}, lightning {version('lightning')}, Python"
    rows += [
        ("command", command_line()),
        ("date", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("versions", f"{versions} {platform.python_version()}"),
        ("device", device),
        ("seed", os.environ.get("PL_GLOBAL_SEED", "not set")),
    ]
    return Section("Provenance", (Table(("", ""), tuple(rows)),))


def sha256(path: str) -> str | None:
    """The SHA-256 of a file in hexadecimal; None if the file can no longer be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def command_line() -> str:
    """The command line of this process, quoted for a shell."""
    name = Path(sys.argv[0]).name
    words = ["bdclean", *sys.argv[1:]] if name in ("bdclean", "__main__.py") else ["python", *sys.argv]
    return escaped(shlex.join(words))
