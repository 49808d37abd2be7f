"""Memory of this process: a limit to what it takes in addition, and the return of what is free; both on Linux only."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_STATUS = "/proc/self/statm"
_PAGE = resource.getpagesize() if resource else 0
LIMIT = resource.getrlimit(resource.RLIMIT_DATA) if resource and os.path.exists(_STATUS) else None
"""The limit that the process was started with, soft and hard; None where a process cannot be limited."""
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


@contextmanager
def limited(most: int) -> Iterator[None]:
    """Limit the additional memory of this process to `most` bytes within the context."""
    if LIMIT is None:
        yield
        return
    # Runs for every image: twice as fast as a file object.
    status = os.open(_STATUS, os.O_RDONLY)
    used = int(os.read(status, 200).split()[5]) * _PAGE
    os.close(status)
    soft, hard = LIMIT
    allowed = used + most if soft == resource.RLIM_INFINITY else min(used + most, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, LIMIT)


def return_free() -> None:
    """Return free memory to the system: the command line configures the allocator to keep it, in each worker."""
    if _trim is not None:
        _trim(0)
