"""The child process of `guard`: it reads the file on its standard input with limits, and may be killed by it."""

from __future__ import annotations

import gc
import mmap
import os
import sys
from contextlib import suppress

from bdclean.inert.containers import parse
from bdclean.inert.nodes import RefusedError

MEMORY = 2**30
"""Maximum bytes of memory for reading a file, in addition to its size."""
CPU_SECONDS = 30


def read() -> None:
    """Read the file and end the process, with 0 if the file was read or refused with a reason."""
    # The process ends soon, so freeing memory is a waste of time.
    gc.disable()
    size = os.fstat(0).st_size
    _limit(MEMORY + size)
    with suppress(RefusedError):
        parse(memoryview(mmap.mmap(0, size, access=mmap.ACCESS_READ)))
    # Skips freeing the objects, which may take longer than reading them.
    os._exit(0)


def _limit(memory: int) -> None:
    """Limit memory and CPU time if the system supports it: Windows does not, and macOS does not limit memory."""
    if sys.platform == "win32":
        return
    import resource

    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_CORE, 0)):
        most = resource.getrlimit(limit)[1]
        least = value if most == resource.RLIM_INFINITY else min(value, most)
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (least, least))
