"""Which errors the user can mend, and what is said of them in one line."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.imports import RequirementCache

from bdclean import printable, quoted
from bdclean.engine.failures import INSTALL, missing
from bdclean.exits import REFUSALS, refusal
from bdclean.messages import readable

OF_LIGHTNING = (ValueError, TypeError, AttributeError, ImportError, MisconfigurationException)
"""What the constructor of Lightning's Trainer raises where an option is wrong."""
OF_KINDS = {
    "loggers": ("logger",),
    "callbacks": ("callbacks",),
    "profilers": ("profiler",),
    "plugins": ("plugins", "precision"),
    "strategies": ("strategy",),
    "accelerators": ("accelerator",),
}
"""Folders of Lightning's, and the options of its Trainer that choose among the classes in them."""
FOLDER = re.compile(rf"lightning[\\/](?:pytorch|fabric)[\\/]({'|'.join(OF_KINDS)})[\\/]")
"""Where a class of Lightning's is."""
VAGUE = r"Expected a |Import path \S+ does not correspond"
"""What the parser says of each type that a class is not."""
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
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # Every file of this program is named; loggers do not say theirs.
        return printable(f"{error.filename or 'writing logs'}: {error.strerror}")
    if match := re.search(r"Parameter '(\w+)' from '(\S+)\.__init__' does not specify a type", str(error)):
        return f"{match[2]}: the argument {match[1]} of its constructor has no type"
    if against := _of_parser(str(error)):
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
    text = missing(re.sub(r"<([\w.]+) object at 0x\w+>", r"\1", str(error)))
    plain = {name: value for name, value in asked.items() if isinstance(value, (str, int, float, list))}
    named = [name for name in plain if re.search(rf"\b{name}\b", str(error)) or CALLED.get(name, name) in str(error)]
    valued = [name for name, value in plain.items() if isinstance(value, str) and value and value in str(error)]
    # Messages name other options too: those to be given instead.
    options = (valued or named or _raised(error, plain))[:1] or plain
    return f"{' '.join(f'--trainer.{name} {quoted(str(asked[name]))}' for name in options) or '--trainer'}: {text}"


def _raised(error: BaseException, asked: Mapping[str, Any]) -> list[str]:
    """The options that chose the class that raised an error, if they were asked for."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    kinds = [found[1] for file in files if (found := FOLDER.search(file))]
    options = [option for kind in reversed(kinds) for option in OF_KINDS[kind]]
    return [option for option in options if option in asked]


def _of_parser(text: str) -> str | None:
    """What a class of Lightning's that the user chose has against being made: a missing package, above all."""
    kind = re.search(rf"Subtypes: .*?\blightning\.\w+\.({'|'.join(OF_KINDS)})\.", text)
    names = re.findall(r"class_path='([\w.]+)'", text)
    if kind is None or not names:
        return None
    option = f"--trainer.{OF_KINDS[kind[1]][0]}"
    for name in names:
        # The parser does not pass on why it could not make one of several.
        if found := re.search(INSTALL, _unmet(name)):
            return f"{option} {name.rpartition('.')[2]}: {missing(found[0])}"
    reasons = re.findall(r"(?m)^ +- (?:Problem with given class_path '[\w.]+':\s+)?(.+)$", text)
    reason = next((reason for reason in reasons if not re.match(VAGUE, reason)), "cannot be made")
    return f"{option} {names[0].rpartition('.')[2]}: {missing(reason)}"


def _unmet(name: str) -> str:
    """What the module of a class needs and does not find."""
    package, _, own = name.rpartition(".")
    kind = getattr(sys.modules.get(package), own, None)
    module = sys.modules.get(getattr(kind, "__module__", ""))
    needs = vars(module).values() if module is not None else ()
    return " ".join(str(need) for need in needs if isinstance(need, RequirementCache) and not need)
