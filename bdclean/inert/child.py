"""What runs in the process of `guard`: it reads the file that is its standard input, with limits, and may die of it."""

from __future__ import annotations

import gc
import mmap
import os
import sys
from contextlib import suppress

from bdclean.inert.containers import parse
from bdclean.inert.nodes import RefusedError

MEMORY = 2**30
"""Bytes of memory that reading a file may take beyond its size."""
CPU_SECONDS = 30


def read() -> None:
    """Read the file and end the process: with 0 if it is read, or refused for a reason."""
    # Nothing is given back before the end.
    gc.disable()
    size = os.fstat(0).st_size
    _limit(MEMORY + size)
    with suppress(RefusedError):
        parse(memoryview(mmap.mmap(0, size, access=mmap.ACCESS_READ)))
    # At once: taking apart what was read may take longer than reading it.
    os._exit(0)


def _limit(memory: int) -> None:
    """Set ends to memory and time, where the system has such: Windows has none, macOS none to the memory."""
    if sys.platform == "win32":
        return
    import resource

    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_CORE, 0)):
        most = resource.getrlimit(limit)[1]
        least = value if most == resource.RLIM_INFINITY else min(value, most)
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (least, least))
