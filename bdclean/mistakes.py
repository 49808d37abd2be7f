"""Which errors the user can mend, and what is said of them in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import callbacks, loggers
from lightning_utilities.core.imports import RequirementCache

from bdclean import InputError, first_line, printable
from bdclean.exits import REFUSALS
from bdclean.messages import readable


def mistake(error: BaseException | None, subcommand: str, classes: Mapping[str, Sequence[str]]) -> str | None:
    """What the user can mend, in one line, or None where it is the program that is wrong.

    Args:
        error: What ended a command.
        subcommand: Its name; empty if it has none.
        classes: Options that name a class, and the classes that there are by short names.
    """
    if isinstance(error, ArgumentError):
        return printable(readable(" ".join(str(error).split()), subcommand, classes))
    if isinstance(error, MisconfigurationException):
        return printable(f"--trainer: {error}")
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return printable(f"{error.filename or 'writing a file'}: {error.strerror}")
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return printable(f"--trainer.deterministic true: {first_line(error)}")
    if match := re.search(r"Parameter '(\w+)' from '(\S+)\.__init__' does not specify a type", str(error)):
        return f"{match[2]}: the argument {match[1]} of its constructor has no type"
    if against := _of_lightning(error, classes):
        return printable(against)
    while error is not None and not isinstance(error, InputError):
        # jsonargparse wraps what a constructor raises.
        error = error.__cause__ or error.__context__
    # A worker's error brings its traceback along, and ends in the message.
    return None if error is None else printable(str(error).rpartition("InputError: ")[2])


def _of_lightning(error: BaseException | None, classes: Mapping[str, Sequence[str]]) -> str | None:
    """What Lightning has against a logger, a callback or a device that the user chose: a missing package, above all."""
    text = str(error)
    while error is not None and (inner := error.__cause__ or error.__context__):
        error = inner
    chosen = re.search(r"class_path='lightning\.pytorch\.(\w+)\.(\w+)'", text)
    option = next((option for option, names in classes.items() if chosen and chosen[2] in names), None)
    reason = re.search(r"Errors:\s+- (?:Problem with given class_path '[\w.]+':\s+)?(.+)", text)
    if chosen and option:
        # The parser does not pass on why it could not make one of several.
        module = sys.modules[getattr({"loggers": loggers, "callbacks": callbacks}[chosen[1]], chosen[2]).__module__]
        unmet = " ".join(str(need) for need in vars(module).values() if isinstance(need, RequirementCache) and not need)
        what, told = f"--{option} {chosen[2]}", unmet if isinstance(error, (ValueError, ImportError)) else ""
    else:
        what, told = "--trainer", str(error) if isinstance(error, ImportError) else ""
    if missing := re.search(r"pip install [^`]+", told):
        return f"{what}: needs a package that is missing: {missing[0]}"
    return f"{what}: {reason[1]}" if option and reason else None
