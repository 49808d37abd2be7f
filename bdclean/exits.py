"""The program's exit codes, each with one meaning in every phase."""

from __future__ import annotations

import errno
import re
from enum import IntEnum

from bdclean.errors import InputError


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FOUND = 1
    MISTAKE = 2
    FAULT = 3
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.FOUND: "with --exit_code true: scan found a backdoor, cleanse left one or did harm, or filter flagged an "
    "image",
    Exit.MISTAKE: "an error that you can fix, such as an option, a file or a full disk; one line describes it",
    Exit.FAULT: "the program failed or ran out of memory; a traceback shows where",
    Exit.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; one line says which files were written",
}

REFUSALS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EISDIR", "ENOTDIR")
    if hasattr(errno, name)
}
"""Error numbers of the system that the user can fix: no space, no permission, invalid name."""


class Interrupted(KeyboardInterrupt):
    """An interruption whose message lists, in one line, which files were written and which were not."""


def refusal(error: BaseException) -> InputError | None:
    """The `InputError` that was raised in this process or in one that it started; None for other errors."""
    if isinstance(error, InputError):
        return error
    # For an error in another training process or a data worker, torch passes only the text of the traceback.
    found = re.search(r"\nbdclean\.errors\.InputError: (.+)\s*$", str(error))
    return None if found is None else InputError("", None, found[1])


def interruption(error: KeyboardInterrupt) -> str:
    """The last line of an interrupted command."""
    return f"bdclean: interrupted: {str(error) or 'no result was written'}"


def table() -> str:
    """All exit codes and their meanings, one per line."""
    return "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items())
