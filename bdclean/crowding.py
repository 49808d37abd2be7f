"""Other processes on the cores of this machine, beside which several threads are slow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

SLACK = 0.5
"""Number of cores that may be missing without a notice."""
STATISTICS = Path("/proc/stat")
"""The times of all cores since boot, on Linux."""
_notice: ContextVar[str | None] = ContextVar("crowding", default=None)


@dataclass(frozen=True)
class Times:
    """Times since boot, in clock ticks.

    Attributes:
        cores: Number of cores.
        total: Sum over all cores.
        idle: The part of it in which cores had no work.
        own: CPU time of this process.
    """

    cores: int
    total: int
    idle: int
    own: float

    @classmethod
    def read(cls) -> Times | None:
        """The current times; None if the operating system does not give them."""
        try:
            lines = STATISTICS.read_text(encoding="utf-8").splitlines()
            # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
            ticks = [int(word) for word in lines[0].split()[1:9]]
            own = os.times()
            cores = sum(line.startswith("cpu") for line in lines[1:])
            return cls(cores, sum(ticks), ticks[3] + ticks[4], (own.user + own.system) * os.sysconf("SC_CLK_TCK"))
        except (OSError, ValueError, IndexError, AttributeError):
            return None


def free_cores(before: Times, after: Times) -> float:
    """Number of cores that other processes left free between two times."""
    total = after.total - before.total
    if total <= 0:
        return float(after.cores)
    return after.cores * (after.idle - before.idle + after.own - before.own) / total


def crowded(free: float, cores: int, threads: int) -> str | None:
    """A notice if other processes leave fewer cores free than this one has threads; else None.

    Args:
        free: Number of free cores.
        cores: Number of cores.
        threads: Number of threads of this process.
    """
    if threads == 1 or free >= threads - SLACK:
        return None
    return (
        f"Other processes leave {free:.1f} of {cores} cores free: {threads} threads can be several times slower beside "
        f"them than OMP_NUM_THREADS={max(1, round(free))}."
    )


def thread_count() -> int:
    """Number of threads that PyTorch will use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdecimal() and int(given) else available


@contextmanager
def watched() -> Iterator[None]:
    """Measure the load of the machine within this context, for `notice`."""
    before = Times.read()
    yield
    after = Times.read()
    if before is not None and after is not None:
        _notice.set(crowded(free_cores(before, after), after.cores, thread_count()))


def notice() -> str | None:
    """The notice of `crowded` about the last watched time; None if there was none."""
    return _notice.get()
