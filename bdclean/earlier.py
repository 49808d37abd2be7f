"""Protecting existing files: a command overwrites only files that an earlier run of the same command wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bdclean import checkpoint, printable
from bdclean.data import PoisonDataModule
from bdclean.data.poisoned_sets import DESCRIPTION
from bdclean.data.poisoned_writing import PARTS
from bdclean.data.sources import open_source
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.outputs import Outputs

LARGEST_REPORT = 64 * 2**20
"""Bytes of the largest report that is read to find out which command wrote it."""


def refuse_others(files: Outputs, overwrite: bool, own: Callable[[Path], bool]) -> None:
    """Refuse to overwrite a file that another command wrote.

    Args:
        files: The files of this command.
        overwrite: The value of `--overwrite`: whether any file may be overwritten.
        own: Tells whether an earlier run of this command wrote an existing file.

    Raises:
        InputError: If one of the files exists and is not from an earlier run of this command.
    """
    found = [] if overwrite else [path for path in files.paths if path.exists()]
    for path in found:
        if not own(path):
            raise InputError(
                "output", files.result, f"{path} {described(path)}; {Given('overwrite', 'true')} replaces it"
            )


def trained_alike(path: Path, model: Classifier, datamodule: PoisonDataModule) -> bool:
    """Whether a file holds a network of the same architecture, trained on the same images with the same attack."""
    try:
        found = checkpoint.read(str(path), "output")
    except InputError:
        return False
    settings = [[found.model, found.data], [dict(model.hparams), dict(datamodule.hparams)]]
    # JSON makes lists of tuples, as the file did.
    stored, current = (json.dumps(one, sort_keys=True, default=str) for one in settings)
    return found.own and stored == current


def cleansed_alike(path: Path, result: Path, source: str | None, model: Classifier) -> bool:
    """Whether a file is from an earlier cleansing of the same suspect with the same `--output`."""
    found = read_report(result.with_suffix(".json"))
    named = path != result or Path(str(found.get("output"))).name == result.name
    return "method" in found and named and _same_suspect(found, source, model)


def scanned_alike(path: Path, source: str | None, model: Classifier) -> bool:
    """Whether a file is from an earlier scan of the same network."""
    found = read_report(path.with_suffix(".json"))
    return "detectors" in found and _same_suspect(found, source, model)


def filtered_alike(path: Path, source: str | None, model: Classifier) -> bool:
    """Whether a file is from an earlier filtering with the same suspect."""
    found = read_report(path.with_suffix(".json"))
    return "flagged" in found and _same_suspect(found, source, model)


def _same_suspect(found: Mapping[str, Any], source: str | None, model: Classifier) -> bool:
    """Whether a report describes the file at `source`, or a network in memory of the same architecture."""
    same_architecture = source is not None or found.get("network") == json.loads(
        json.dumps(dict(model.hparams), default=str)
    )
    return found.get("origin", "") == source and same_architecture


def poisoned_alike(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a file or a folder is a poisoned set that was made with the same options, or an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return True
    try:
        facts = open_source(str(path), parameter="output").poisoned
    except InputError:
        return False
    return facts is not None and facts.settings == json.loads(json.dumps(dict(settings), default=str))


def refuse_other_folders(path: Path, option: Given) -> None:
    """Refuse to replace a folder that has other files than a poisoned set, which would be lost.

    Args:
        path: The folder, which may not exist.
        option: The parameter that named it, for messages.

    Raises:
        InputError: If it has.
    """
    others = sorted({*os.listdir(path)} - {*PARTS, DESCRIPTION}) if path.is_dir() else []
    if others:
        raise InputError(*option, f"is a folder with other files ({others[0]}); choose a new name")


def read_report(path: Path) -> dict[str, Any]:
    """The report of an earlier run; empty if the file is not a report."""
    try:
        if path.stat().st_size > LARGEST_REPORT:
            return {}
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) and {"bdclean", "checkpoint"} <= report.keys() else {}


def origin(report: Path, suspect: str | None) -> str | None:
    """The path of a suspect's file relative to its report, which does not depend on the working directory."""
    if suspect is None:
        return None
    path = os.path.realpath(suspect)
    try:
        return os.path.relpath(path, os.path.realpath(report.parent))
    except ValueError:  # another drive of Windows
        return path


def described(path: Path) -> str:
    """What an existing file is, for a message."""
    report = read_report(path.with_suffix(".json"))
    if not report:
        return "exists, and was not written by this command"
    kinds = {"method": "the result of cleansing", "flagged": "the filtering with"}
    kind = next((text for key, text in kinds.items() if key in report), "the scan of")
    return printable(f"is {kind} {report.get('checkpoint') or 'a network in memory'}")
