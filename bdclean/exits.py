"""How the program ends: its exit codes, each with one meaning in every phase."""

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
    Exit.FOUND: "a finding, where --exit_code true asks for it: scan found a backdoor, cleanse left one or did harm",
    Exit.MISTAKE: "you can fix it: an option, a file, a full disk; one line says what",
    Exit.FAULT: "the program failed or ran out of memory; a traceback says where",
    Exit.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; one line says which files were written",
}

REFUSALS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EISDIR", "ENOTDIR")
    if hasattr(errno, name)
}
"""Numbers of the system's errors that the user can mend: no space, no permission, no such name."""


class Interrupted(KeyboardInterrupt):
    """An interruption that says in one line what was written and what was not."""


def refusal(error: BaseException) -> InputError | None:
    """An `InputError` that was raised here, or in a process that this one started; None for other errors."""
    if isinstance(error, InputError):
        return error
    # Of a process that trains along or decodes images, torch only hands on the text of its traceback.
    found = re.search(r"\nbdclean\.errors\.InputError: (.+)\s*$", str(error))
    return None if found is None else InputError("", None, found[1])


def interruption(error: KeyboardInterrupt) -> str:
    """The line with which an interrupted command ends."""
    return f"bdclean: interrupted: {str(error) or 'no result was written'}"


def table() -> str:
    """Every exit code and its meaning, a line each."""
    return "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items())
