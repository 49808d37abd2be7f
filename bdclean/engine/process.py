"""Memory of the training process."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of the GNU allocator, for `mallopt`."""
NEVER = -1
"""Trim threshold with which the heap never shrinks."""
TOP_PAD = 2**26
"""Minimum growth of the heap, in bytes."""
TUNABLES = "GLIBC_TUNABLES"
"""Environment variable with the user's settings of the allocator."""


def keep_memory() -> None:
    """Make the GNU allocator reuse memory that a training step frees; other allocators are unchanged.

    By default each large tensor is mapped anew, and the kernel clears its pages, which takes a fifth of a step on a
    CPU. A user's `GLIBC_TUNABLES` takes precedence.
    """
    if sys.platform != "linux" or TUNABLES in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, TOP_PAD)


def peak_memory() -> int | None:
    """Peak memory of this process, in MiB; None on Windows."""
    status = Path("/proc/self/status")
    # Some sandboxes leave out VmHWM.
    if status.exists() and (peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(peak[1]) // 2**10
    try:
        import resource
    except ImportError:
        return None
    # On Linux this may include the memory of the parent process.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
