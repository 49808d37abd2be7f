"""Which errors the user can mend."""

from __future__ import annotations

from jsonargparse import ArgumentError

from bdclean.errors import InputError
from bdclean.exits import REFUSALS, refusal


def mistake(error: BaseException) -> InputError | None:
    """What the user can mend, or None where it is the program that is wrong.

    Args:
        error: What ended a command.
    """
    if (refused := refusal(error)) is not None:
        return refused
    if isinstance(error, ArgumentError):
        return InputError("", None, str(error))
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # Every file of this program is named; loggers do not say theirs.
        return InputError("", None, f"{error.filename or 'writing logs'}: {error.strerror}")
    cause: BaseException | None = error
    while cause is not None and (refused := refusal(cause)) is None:
        # jsonargparse wraps what a constructor raises.
        cause = cause.__cause__ or cause.__context__
    return refused
