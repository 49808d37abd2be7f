"""Which errors the user can mend, and what is said of them in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentError
from lightning_utilities.core.imports import RequirementCache

from bdclean.cli.messages import readable
from bdclean.engine.blame import OF_KINDS
from bdclean.engine.failures import INSTALL, missing
from bdclean.errors import InputError
from bdclean.exits import REFUSALS, refusal

VAGUE = r"Expected a |Import path \S+ does not correspond"
"""What the parser says of each type that a class is not."""


def mistake(error: BaseException | None, subcommand: str, classes: Mapping[str, Sequence[str]]) -> InputError | None:
    """What the user can mend, or None where it is the program that is wrong.

    Args:
        error: What ended a command.
        subcommand: Its name; empty if it has none.
        classes: Options that name a class, and the classes that there are by short names.
    """
    if error is not None and (refused := refusal(error)) is not None:
        return refused
    if isinstance(error, ArgumentError):
        return InputError("", None, readable(" ".join(str(error).split()), subcommand, classes))
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # Every file of this program is named; loggers do not say theirs.
        return InputError("", None, f"{error.filename or 'writing logs'}: {error.strerror}")
    if match := re.search(r"Parameter '(\w+)' from '(\S+)\.__init__' does not specify a type", str(error)):
        return InputError("", None, f"{match[2]}: the argument {match[1]} of its constructor has no type")
    if (against := _of_parser(str(error))) is not None:
        return against
    while error is not None and (refused := refusal(error)) is None:
        # jsonargparse wraps what a constructor raises.
        error = error.__cause__ or error.__context__
    return None if error is None else refused


def _of_parser(text: str) -> InputError | None:
    """What a class of Lightning's that the user chose has against being made: a missing package, above all."""
    kind = re.search(rf"Subtypes: .*?\blightning\.\w+\.({'|'.join(OF_KINDS)})\.", text)
    names = re.findall(r"class_path='([\w.]+)'", text)
    if kind is None or not names:
        return None
    option = f"trainer.{OF_KINDS[kind[1]][0]}"
    for name in names:
        # The parser does not pass on why it could not make one of several.
        if found := re.search(INSTALL, _unmet(name)):
            return InputError(option, name.rpartition(".")[2], missing(found[0]))
    reasons = re.findall(r"(?m)^ +- (?:Problem with given class_path '[\w.]+':\s+)?(.+)$", text)
    reason = next((reason for reason in reasons if not re.match(VAGUE, reason)), "cannot be made")
    return InputError(option, names[0].rpartition(".")[2], missing(reason))


def _unmet(name: str) -> str:
    """What the module of a class needs and does not find."""
    package, _, own = name.rpartition(".")
    kind = getattr(sys.modules.get(package), own, None)
    module = sys.modules.get(getattr(kind, "__module__", ""))
    needs = vars(module).values() if module is not None else ()
    return " ".join(str(need) for need in needs if isinstance(need, RequirementCache) and not need)
