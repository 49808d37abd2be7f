"""How the program ends: its exit codes, each with one meaning in every phase."""

from __future__ import annotations

import errno
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FOUND = 1
    MISTAKE = 2
    FAULT = 3
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.FOUND: "a backdoor was found, or the cleansed network is not to be trusted, and --exit_code true was given",
    Exit.MISTAKE: "you can mend it: an option, a file, a full disk; one line says what",
    Exit.FAULT: "the program is wrong, or ran out of memory; a traceback says where",
    Exit.INTERRUPTED: "interrupted, by Ctrl-C or SIGTERM; one line says what was written",
}

REFUSALS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EISDIR", "ENOTDIR")
    if hasattr(errno, name)
}
"""Numbers of the system's errors that the user can mend: no space, no permission, no such name."""


class Interrupted(KeyboardInterrupt):
    """An interruption that says in one line what was written and what was not."""


def interruption(error: KeyboardInterrupt) -> str:
    """The line with which an interrupted command ends."""
    return f"bdclean: interrupted: {str(error) or 'no result was written'}"


def table() -> str:
    """Every exit code and its meaning, a line each."""
    return "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items())
