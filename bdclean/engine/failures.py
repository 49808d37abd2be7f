"""Find the error that ended a run, if the user can fix it: an InputError in any process, or an error of Lightning."""

from __future__ import annotations

import pickle
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from bdclean.errors import InputError
from bdclean.exits import refusal

INSTALL = r"pip install [^`]+"
"""Lightning's advice if a package is missing."""
TORCH = str(Path(torch.__file__).parent)
FRAME = re.compile(r'(?m)^  File "(.+)", line \d+, in ')
ERROR = re.compile(r"(?m)^[\w.]*?(\w+(?:Error|Exception))(?::|$)")
"""Beginning of the line of a traceback that names the error."""
MESSAGES = (
    (r"`(val_check_interval)` \((\S+)\) (.*)", r"trainer.\1", r"\2", r"\3"),
    (
        r"Early stopping conditioned on metric `(\S+)` which is not available.*",
        *("trainer.callbacks.monitor", r"\1", r"\g<0>"),
    ),
    (r"`ModelCheckpoint\(monitor='(\S+)'\)` could not find.*", "trainer.callbacks.monitor", r"\1", r"\g<0>"),
    (r"Cannot use `(\w+)` callback.*", "trainer.callbacks", r"\1", r"\g<0>"),
    (r".* does not have a deterministic implementation.*", "trainer.deterministic", "true", r"\g<0>"),
)
"""Patterns of messages of Lightning and torch about a parameter, with templates of the parameter, value and reason."""
OF_PARTS = ("ImportError", "ModuleNotFoundError", "AttributeError", "NotImplementedError", "MisconfigurationException")
"""Errors of Lightning's callbacks, loggers and profilers whose messages name the missing requirement."""


def of_a_run(error: Exception, parts: Mapping[str, Sequence[object]]) -> InputError | None:
    """The error as an InputError if the user can fix it; None if it is a bug.

    Args:
        error: The error that ended a run.
        parts: Objects of callbacks, loggers and profilers, by the option of the Trainer that made them.
    """
    texts = _of_processes(error) or ["".join(traceback.format_exception(error))]
    # InputErrors first: if one process raises one, the others only fail to connect.
    refused = (refusal(RuntimeError(f"\n{text}")) for text in texts)
    found = (*refused, *(_of_traceback(text, parts) for text in texts))
    return next((error for error in found if error is not None), None)


def missing(text: str) -> str:
    """Reduce a message about a missing package to the package; return other messages unchanged."""
    found = re.search(INSTALL, text)
    return f"needs a package that is missing: {found[0]}" if found else text


def _of_processes(error: Exception) -> list[str]:
    """The tracebacks of all training processes; torch itself reports only one."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    files = [Path(name) for frame in frames for name in getattr(frame.f_locals.get("self"), "error_files", ())]
    # Torch wrote these files, and does not remove them.
    texts = [str(pickle.loads(file.read_bytes())) for file in files if file.is_file()]
    for file in files:
        file.unlink(missing_ok=True)
    return texts


def _of_traceback(text: str, parts: Mapping[str, Sequence[object]]) -> InputError | None:
    found = [*ERROR.finditer(text)]
    if not found:
        return None
    kind, message = found[-1][1], " ".join(text[found[-1].end() :].split())
    for pattern, *templates in MESSAGES:
        if match := re.match(pattern, message):
            parameter, value, reason = map(match.expand, templates)
            return InputError(parameter, value, reason)
    files = [file for file in FRAME.findall(text) if not file.startswith(TORCH)]
    for option, objects in parts.items():
        for part in objects if kind in OF_PARTS else ():
            if files and files[-1] in _files_of(part):
                return InputError(f"trainer.{option}", type(part).__name__, missing(message or kind))
    return InputError("trainer", None, message) if kind == MisconfigurationException.__name__ else None


def _files_of(part: object) -> list[str | None]:
    """Files in Lightning that define the class of an object and its bases."""
    names = [one.__module__ for one in type(part).__mro__ if one.__module__.startswith("lightning.")]
    return [sys.modules[name].__file__ for name in names]
