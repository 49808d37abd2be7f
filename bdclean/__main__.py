"""Entry point: prints help and refuses common mistakes before the slow import of torch."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from bdclean import crowding, printable
from bdclean.cli import instant
from bdclean.cli.flags import flag
from bdclean.errors import InputError, naming
from bdclean.exits import REFUSALS, Exit, interruption

LOADING = "Loading PyTorch..."
PR_SET_PDEATHSIG = 1
"""Operation of Linux's prctl that sets the signal which a process gets when its parent ends."""


def end_with_parent() -> None:
    """Let Linux kill this process when its parent ends, if several processes train together.

    A first process that is killed with SIGKILL cannot end the others, which would wait for it and keep their memory.
    """
    if sys.platform == "linux" and "LOCAL_RANK" in os.environ:
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(Exit.INTERRUPTED)


def report_thread(ended: threading.ExceptHookArgs) -> None:
    """Print the error that ended a thread, except a refusal of the system, which the main thread meets and reports."""
    if not (isinstance(ended.exc_value, OSError) and ended.exc_value.errno in REFUSALS):
        threading.__excepthook__(ended)


def report_unraisable(ended: sys.UnraisableHookArgs) -> None:
    """Print an error that Python could not raise, except from `__del__`: its cause has been reported already."""
    if getattr(ended.object, "__name__", "") != "__del__":
        sys.__unraisablehook__(ended)


def leave(code: int) -> NoReturn:
    """End this process with an exit code, after running its exit handlers.

    After an interruption in some native modules, Python would end by a signal later, regardless of the exit code.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def print_instant(words: list[str]) -> bool:
    """Print help or the version if requested; the reader may close the pipe early, as `head` does."""
    try:
        printed = instant.answer(words)
        if printed:
            sys.stdout.flush()
    except BrokenPipeError:
        leave(Exit.DONE)
    return printed


@contextmanager
def loading(quiet: bool) -> Iterator[None]:
    """Show a line on the terminal within this context, unless `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    print(LOADING, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(" " * len(LOADING), end="\r", file=sys.stderr, flush=True)


def run() -> None:
    """Run the command `bdclean` of the shell."""
    words = sys.argv[1:]
    try:
        # SIGTERM interrupts the program as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if sys.platform == "linux":
            end_with_parent()
        threading.excepthook = report_thread
        sys.unraisablehook = report_unraisable
        if print_instant(words):
            return
        # These import packages that help and the version do not need.
        from bdclean.cli import early, renamed

        with naming(flag):
            words = renamed.announced(words)
            early.check(words)
            early.check_classes(words)
            early.check_required(words)
        from bdclean.cli.options import QUIET

        with loading(quiet=QUIET in words), crowding.watched():
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
