"""What the caller can mend: errors that name a parameter, and checks of ranges.

A parameter has one name here, its path among all options of the program: `data.num_unlabeled`. How whoever called knows
it, `naming` says: in Python it is `num_unlabeled`, and the command line makes a flag of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


def argument(parameter: str) -> str:
    """What Python calls a parameter: an argument of a function or of a class."""
    return parameter.rpartition(".")[2]


_naming: ContextVar[Callable[[str], str]] = ContextVar("naming", default=argument)


@contextmanager
def naming(name: Callable[[str], str]) -> Iterator[None]:
    """Within it, messages name parameters as the caller knows them.

    Args:
        name: From the path of a parameter to its name.
    """
    token = _naming.set(name)
    try:
        yield
    finally:
        _naming.reset(token)


class Given(NamedTuple):
    """A parameter as a message names it.

    Attributes:
        parameter: Its path.
        value: Its value; None if the message leaves that out.
    """

    parameter: str
    value: object = None

    def __str__(self) -> str:
        name = _naming.get()(self.parameter)
        if self.value is None:
            return name
        # An empty text has to be seen.
        return f"{name} {str(self.value) or repr('')}"


class InputError(ValueError):
    """Something that the caller can mend; the command line exits with 2.

    Its text is one line, which names the parameter as the caller knows it.

    Args:
        parameter: Path of the parameter that is wrong; empty if it is none.
        value: Its value; None if the message leaves that out.
        reason: What is wrong.
        others: Parameters that the first one does not go with.

    Attributes:
        parameter: As above.
        value: As above.
        reason: As above.
    """

    def __init__(self, parameter: str, value: object, reason: str, *others: Given) -> None:
        super().__init__(parameter, value, reason, *others)
        self.parameter = parameter
        self.value = value
        self.reason = reason
        given = " ".join(str(one) for one in (Given(parameter, value), *others) if one.parameter)
        # Made here: an error can leave the call that names parameters as its caller knows them.
        self.line = f"{given}: {reason}" if given else reason

    def __str__(self) -> str:
        return self.line


def within(parameter: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
    """Check a number that the caller gave.

    Args:
        parameter: Path of the parameter.
        value: The number.
        low: The least that it can be.
        high: The most.
        above: Whether it has to be more than `low`.

    Raises:
        InputError: If it is out of range, or no finite number.
    """
    if not (math.isfinite(value) and low <= value <= high and not (above and value == low)):
        most = "" if high == math.inf else f" and at most {high if isinstance(high, int) else f'{high:g}'}"
        raise InputError(parameter, value, f"must be {'above' if above else 'at least'} {low:g}{most}")
