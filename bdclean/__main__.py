"""The program's start: the version at once, everything else after torch and lightning have been imported."""

import os
import sys
import traceback

from bdclean import __version__

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


def run() -> None:
    """What the shell's `bdclean` calls."""
    if sys.argv[1:] == ["--version"]:
        print(__version__)
        return
    start_anew()
    from bdclean.cli import main

    try:
        main()
    except Exception:
        traceback.print_exc()
        # Not 1: that is what `bdclean scan --exit_code true` says of a backdoor.
        sys.exit(3)


if __name__ == "__main__":
    run()
