"""The process that trains: its memory."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Numbers of parameters of the GNU allocator."""
NEVER = -1
"""Threshold at which the heap never shrinks."""
TOP_PAD = 2**26
"""Bytes by which the heap grows at least."""
TUNABLES = "GLIBC_TUNABLES"
"""The variable with the user's own settings of the allocator."""


def keep_memory() -> None:
    """Let the GNU allocator keep what a training step gives back for the next; other allocators stay as they are.

    By default each large tensor is new memory, of which the kernel clears every page: a fifth of a step on a CPU. Who
    has set `GLIBC_TUNABLES` has chosen otherwise.
    """
    if sys.platform != "linux" or TUNABLES in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, TOP_PAD)


def peak_memory() -> int | None:
    """Of this process, in MiB; None on Windows."""
    status = Path("/proc/self/status")
    # Not every sandbox says it.
    if status.exists() and (peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(peak[1]) // 2**10
    try:
        import resource
    except ImportError:
        return None
    # On Linux this counts the process that started this one, too.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
