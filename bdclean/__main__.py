"""The program's start: help and the commonest mistakes at once, everything else after torch has been imported."""

import atexit
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

from bdclean import InputError, early, printable
from bdclean.exits import REFUSALS, Exit, interruption

ALLOCATOR = (
    "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.top_pad=67108864:"
    "glibc.malloc.hugetlb=1"
)
"""Settings of the GNU allocator: memory that a step gives back is kept for the next, in huge pages.

By default each large tensor is new memory, of which the kernel clears every page: a fifth of a training step on a CPU.
"""


def start_anew() -> None:
    """Let this process begin again with `ALLOCATOR`, which is read when a process starts, and by Linux alone."""
    if sys.platform == "linux" and sys.executable and "GLIBC_TUNABLES" not in os.environ:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | {"GLIBC_TUNABLES": ALLOCATOR})


def report_thread(ended: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but a refusal of the system: the main thread comes upon it too, and says it."""
    if not (isinstance(ended.exc_value, OSError) and ended.exc_value.errno in REFUSALS):
        threading.__excepthook__(ended)


def leave(code: int) -> NoReturn:
    """End this process with an exit code, after what was registered for its end.

    An interruption that passes through some native modules makes Python end by a signal later, whatever the exit code.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run() -> None:
    """What the shell's `bdclean` calls."""
    words = sys.argv[1:]
    try:
        # Whoever stops the program is answered as Ctrl-C is.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.excepthook = report_thread
        if early.answer(words):
            return
        early.check(words)
        early.check_classes(words)
        early.check_required(words)
        start_anew()
        from bdclean.cli import main

        main()
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
