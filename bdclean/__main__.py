"""The program's start: help and the commonest mistakes at once, everything else after torch has been imported."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

from bdclean import printable
from bdclean.cli import instant
from bdclean.cli.flags import flag
from bdclean.errors import InputError, naming
from bdclean.exits import REFUSALS, Exit, interruption

PR_SET_PDEATHSIG = 1
"""Number of the operation of Linux's prctl that sets which signal a process gets when its parent ends."""


def end_with_parent() -> None:
    """Let Linux kill this process when the one that started it is gone, if it is one of several that train together.

    Killed with SIGKILL, the first process cannot end the others, which would wait for it and keep their memory.
    """
    if sys.platform == "linux" and "LOCAL_RANK" in os.environ:
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(Exit.INTERRUPTED)


def report_thread(ended: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but a refusal of the system: the main thread comes upon it too, and says it."""
    if not (isinstance(ended.exc_value, OSError) and ended.exc_value.errno in REFUSALS):
        threading.__excepthook__(ended)


def report_unraisable(ended: sys.UnraisableHookArgs) -> None:
    """Print what Python could not raise, but not of objects that end unfinished: what ended them is said already."""
    if getattr(ended.object, "__name__", "") != "__del__":
        sys.__unraisablehook__(ended)


def leave(code: int) -> NoReturn:
    """End this process with an exit code, after what was registered for its end.

    An interruption that passes through some native modules makes Python end by a signal later, whatever the exit code.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def answered(words: list[str]) -> bool:
    """Print help or the version, if that is asked for, also to a reader that stops early, as `head` does."""
    try:
        found = instant.answer(words)
        if found:
            sys.stdout.flush()
    except BrokenPipeError:
        leave(Exit.DONE)
    return found


def run() -> None:
    """What the shell's `bdclean` calls."""
    words = sys.argv[1:]
    try:
        # Whoever stops the program is answered as Ctrl-C is.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if sys.platform == "linux":
            end_with_parent()
        threading.excepthook = report_thread
        sys.unraisablehook = report_unraisable
        if answered(words):
            return
        # What is answered at once needs none of the packages that these import.
        from bdclean.cli import early, renamed

        with naming(flag):
            words = renamed.announced(words)
            early.check(words)
            early.check_classes(words)
            early.check_required(words)
        from bdclean.cli.main import main

        main(words)
    except KeyboardInterrupt as error:
        print(interruption(error), file=sys.stderr)
        leave(Exit.INTERRUPTED)
    except SystemExit as end:
        if end.code == Exit.INTERRUPTED:
            leave(Exit.INTERRUPTED)
        raise
    except InputError as error:
        print(f"bdclean: error: {printable(str(error))}", file=sys.stderr)
        sys.exit(Exit.MISTAKE)
    except Exception as error:
        traceback.print_exc()
        print(f"bdclean: fault: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        sys.exit(Exit.FAULT)


if __name__ == "__main__":
    run()
