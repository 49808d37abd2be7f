"""Which errors the user can mend, and what is said of them in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import callbacks, loggers
from lightning_utilities.core.imports import RequirementCache

from bdclean import first_line, printable, quoted
from bdclean.exits import REFUSALS, refusal
from bdclean.messages import readable

INSTALL = r"pip install [^`]+"
"""Lightning's advice where a package is missing."""
CALLED = {"max_time": "Timer(duration="}
"""What Lightning's messages call options of its Trainer, where that is not their name."""


def mistake(error: BaseException | None, subcommand: str, classes: Mapping[str, Sequence[str]]) -> str | None:
    """What the user can mend, in one line, or None where it is the program that is wrong.

    Args:
        error: What ended a command.
        subcommand: Its name; empty if it has none.
        classes: Options that name a class, and the classes that there are by short names.
    """
    if error is not None and (refused := refusal(error)) is not None:
        return printable(refused)
    if isinstance(error, ArgumentError):
        return printable(readable(" ".join(str(error).split()), subcommand, classes))
    if against := _of_a_run(str(error).strip()):
        return printable(against)
    if isinstance(error, MisconfigurationException):
        return printable(f"--trainer: {error}")
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # Every file of this program is named; loggers do not say theirs.
        return printable(f"{error.filename or 'writing logs'}: {error.strerror}")
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return printable(f"--trainer.deterministic true: {first_line(error)}")
    if match := re.search(r"Parameter '(\w+)' from '(\S+)\.__init__' does not specify a type", str(error)):
        return f"{match[2]}: the argument {match[1]} of its constructor has no type"
    if against := _of_lightning(error, classes):
        return printable(against)
    while error is not None and (refused := refusal(error)) is None:
        # jsonargparse wraps what a constructor raises.
        error = error.__cause__ or error.__context__
    return None if error is None or refused is None else printable(refused)


def blamed(error: BaseException, asked: Mapping[str, Any]) -> str:
    """What Lightning's Trainer has against an option, in one line that names the option and its value.

    Args:
        error: What its constructor raised.
        asked: The options of the Trainer that are not its defaults.
    """
    text = re.sub(r"<([\w.]+) object at 0x\w+>", r"\1", str(error))
    if missing := re.search(INSTALL, text):
        text = f"needs a package that is missing: {missing[0]}"
    plain = {name: value for name, value in asked.items() if isinstance(value, (str, int, float, list))}
    named = [name for name in plain if re.search(rf"\b{name}\b", str(error)) or CALLED.get(name, name) in str(error)]
    valued = [name for name, value in plain.items() if isinstance(value, str) and value and value in str(error)]
    # Messages name other options too: those to be given instead.
    options = (valued or named)[:1] or plain
    return f"{' '.join(f'--trainer.{name} {quoted(str(asked[name]))}' for name in options) or '--trainer'}: {text}"


def _of_a_run(text: str) -> str | None:
    """What Lightning has against an option or a callback once it runs, in one line that names it."""
    if match := re.match(r"`(val_check_interval)` \((\S+)\) (.*)", text):
        return f"--trainer.{match[1]} {match[2]}: {match[3]}"
    if match := re.match(r"Early stopping conditioned on metric `(\S+)` which is not available", text):
        return f"--trainer.callbacks.monitor {match[1]}: {text}"
    if match := re.match(r"`ModelCheckpoint\(monitor='(\S+)'\)` could not find", text):
        return f"--trainer.callbacks.monitor {match[1]}: {text}"
    if match := re.match(r"Cannot use `(\w+)` callback", text):
        return f"--trainer.callbacks {match[1]}: {text}"
    return None


def _of_lightning(error: BaseException | None, classes: Mapping[str, Sequence[str]]) -> str | None:
    """What Lightning has against a logger, a callback or a device that the user chose: a missing package, above all."""
    text = str(error)
    while error is not None and (inner := error.__cause__ or error.__context__):
        error = inner
    chosen = re.findall(r"class_path='lightning\.pytorch\.(?:loggers|callbacks)\.(\w+)'", text)
    options = {f"--{option} {name}": name for name in chosen for option, names in classes.items() if name in names}
    if isinstance(error, (ImportError, ValueError)):
        for option, name in options.items():
            # The parser does not pass on why it could not make one of several.
            if missing := re.search(INSTALL, _unmet(name)):
                return f"{option}: needs a package that is missing: {missing[0]}"
    if isinstance(error, ImportError) and (missing := re.search(INSTALL, str(error))):
        return f"--trainer: needs a package that is missing: {missing[0]}"
    reason = re.search(r"Errors:\s+- (?:Problem with given class_path '[\w.]+':\s+)?(.+)", text)
    return f"{next(iter(options))}: {reason[1]}" if options and reason else None


def _unmet(name: str) -> str:
    """What the module of a logger or a callback needs and does not find."""
    module = sys.modules[(getattr(loggers, name, None) or getattr(callbacks, name)).__module__]
    return " ".join(str(need) for need in vars(module).values() if isinstance(need, RequirementCache) and not need)
