"""Errors that the caller can fix, each of which names a parameter, and checks of ranges.

Inside the program a parameter has one name, its path among all options: `data.num_unlabeled`. `naming` translates it to
the caller's name for it: `num_unlabeled` in Python, and a flag on the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


def argument(parameter: str) -> str:
    """The Python name of a parameter: an argument of a function or a class."""
    return parameter.rpartition(".")[2]


_naming: ContextVar[Callable[[str], str]] = ContextVar("naming", default=argument)


@contextmanager
def naming(name: Callable[[str], str]) -> Iterator[None]:
    """Within this context, messages use the caller's names of parameters.

    Args:
        name: Maps the path of a parameter to its name.
    """
    token = _naming.set(name)
    try:
        yield
    finally:
        _naming.reset(token)


class Given(NamedTuple):
    """A parameter and its value in a message.

    Attributes:
        parameter: Path of the parameter.
        value: Its value; None if the message omits it.
    """

    parameter: str
    value: object = None

    def __str__(self) -> str:
        name = _naming.get()(self.parameter)
        if self.value is None:
            return name
        # An empty string is shown as ''.
        return f"{name} {str(self.value) or repr('')}"


class InputError(ValueError):
    """An error that the caller can fix; the command line exits with code 2.

    Its message is one line that contains the caller's name for the parameter.

    Args:
        parameter: Path of the wrong parameter; empty if the error concerns none.
        value: Its value; None if the message omits it.
        reason: Description of the error.
        others: Parameters that conflict with the first one.

    Attributes:
        parameter: Path of the wrong parameter.
        value: Its value.
        reason: Description of the error.
    """

    def __init__(self, parameter: str, value: object, reason: str, *others: Given) -> None:
        super().__init__(parameter, value, reason, *others)
        self.parameter = parameter
        self.value = value
        self.reason = reason
        given = " ".join(str(one) for one in (Given(parameter, value), *others) if one.parameter)
        # Built here, because the error can leave the `naming` context before it is printed.
        self.line = f"{given}: {reason}" if given else reason

    def __str__(self) -> str:
        return self.line


def within(parameter: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
    """Check the range of a number.

    Args:
        parameter: Path of the parameter.
        value: The number.
        low: Lower bound.
        high: Upper bound, included.
        above: Whether `low` itself is excluded.

    Raises:
        InputError: If the number is out of range or not finite.
    """
    if not (math.isfinite(value) and low <= value <= high and not (above and value == low)):
        most = "" if high == math.inf else f" and at most {high if isinstance(high, int) else f'{high:g}'}"
        raise InputError(parameter, value, f"must be {'above' if above else 'at least'} {low:g}{most}")
