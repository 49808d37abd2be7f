"""Decide which errors the user can fix."""

from __future__ import annotations

from jsonargparse import ArgumentError

from bdclean.errors import InputError
from bdclean.exits import REFUSALS, refusal


def mistake(error: BaseException) -> InputError | None:
    """The error as an InputError if the user can fix it; None if it is a bug.

    Args:
        error: The error that ended a command.
    """
    if (refused := refusal(error)) is not None:
        return refused
    if isinstance(error, ArgumentError):
        return InputError("", None, str(error))
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # The program's own errors have a file name; those of loggers do not.
        return InputError("", None, f"{error.filename or 'writing logs'}: {error.strerror}")
    cause: BaseException | None = error
    while cause is not None and (refused := refusal(cause)) is None:
        # jsonargparse wraps errors of constructors.
        cause = cause.__cause__ or cause.__context__
    return refused
