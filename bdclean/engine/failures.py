"""What ended a run of Lightning's, if the user can fix it: a refusal in any process, or a part that the user chose."""

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
"""Lightning's advice where a package is missing."""
TORCH = str(Path(torch.__file__).parent)
FRAME = re.compile(r'(?m)^  File "(.+)", line \d+, in ')
ERROR = re.compile(r"(?m)^[\w.]*?(\w+(?:Error|Exception))(?::|$)")
"""How the line of a traceback begins that names the error."""
AGAINST = (
    (r"`(val_check_interval)` \((\S+)\) (.*)", r"trainer.\1", r"\2", r"\3"),
    (
        r"Early stopping conditioned on metric `(\S+)` which is not available.*",
        *("trainer.callbacks.monitor", r"\1", r"\g<0>"),
    ),
    (r"`ModelCheckpoint\(monitor='(\S+)'\)` could not find.*", "trainer.callbacks.monitor", r"\1", r"\g<0>"),
    (r"Cannot use `(\w+)` callback.*", "trainer.callbacks", r"\1", r"\g<0>"),
    (r".* does not have a deterministic implementation.*", "trainer.deterministic", "true", r"\g<0>"),
)
"""How messages of Lightning and torch read that are about a parameter, and the parameter, its value and the reason."""
OF_PARTS = ("ImportError", "ModuleNotFoundError", "AttributeError", "NotImplementedError", "MisconfigurationException")
"""Errors of Lightning's callbacks, loggers and profilers that say what they lack."""


def of_a_run(error: Exception, parts: Mapping[str, Sequence[object]]) -> InputError | None:
    """What the user can fix; None where the program is wrong.

    Args:
        error: What ended a run of Lightning's.
        parts: Options of the Trainer that name classes, and the objects that were made of them.
    """
    texts = _of_processes(error) or ["".join(traceback.format_exception(error))]
    # Where one process refuses something, others only find that it is gone.
    refused = (refusal(RuntimeError(f"\n{text}")) for text in texts)
    found = (*refused, *(_of_traceback(text, parts) for text in texts))
    return next((error for error in found if error is not None), None)


def missing(text: str) -> str:
    """A message, or, if it says which package is missing, that alone."""
    found = re.search(INSTALL, text)
    return f"needs a package that is missing: {found[0]}" if found else text


def _of_processes(error: Exception) -> list[str]:
    """The tracebacks of all processes that trained along; torch hands on that of one."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    files = [Path(name) for frame in frames for name in getattr(frame.f_locals.get("self"), "error_files", ())]
    # Torch has written them, and leaves them behind.
    texts = [str(pickle.loads(file.read_bytes())) for file in files if file.is_file()]
    for file in files:
        file.unlink(missing_ok=True)
    return texts


def _of_traceback(text: str, parts: Mapping[str, Sequence[object]]) -> InputError | None:
    found = [*ERROR.finditer(text)]
    if not found:
        return None
    kind, message = found[-1][1], " ".join(text[found[-1].end() :].split())
    for pattern, *said in AGAINST:
        if match := re.match(pattern, message):
            parameter, value, reason = map(match.expand, said)
            return InputError(parameter, value, reason)
    files = [file for file in FRAME.findall(text) if not file.startswith(TORCH)]
    for option, objects in parts.items():
        for part in objects if kind in OF_PARTS else ():
            if files and files[-1] in _files_of(part):
                return InputError(f"trainer.{option}", type(part).__name__, missing(message or kind))
    return InputError("trainer", None, message) if kind == MisconfigurationException.__name__ else None


def _files_of(part: object) -> list[str | None]:
    """The modules of Lightning's that define the class of an object."""
    names = [one.__module__ for one in type(part).__mro__ if one.__module__.startswith("lightning.")]
    return [sys.modules[name].__file__ for name in names]
