"""Run the tasks of a benchmark in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from bdclean.benchmark.engines.base import Engine, Pool, Progress, Task, cores, perform, schedule
from bdclean.crowding import thread_count

MEMORY_PER_JOB = 3 * 2**30
"""Memory to allow for a cell with a small network on a CPU, in bytes."""


class Local(Engine):
    """Processes on this machine: one for each GPU or, without GPUs, for each CPU core, as far as memory allows."""

    def devices(self) -> int:
        return max(1, len(gpus()))

    def run(self, tasks: Sequence[Task], jobs: int | None, preload: Sequence[str] = ()) -> Iterator[Progress]:
        return schedule(tasks, _Processes(jobs, preload))


@dataclass(frozen=True)
class _Running:
    """A running task, its process, its device, and the connection on which it reports the reason of a failure."""

    task: Task
    process: Any
    place: str | None
    reason: Connection


class _Processes(Pool):
    """Running processes, one per task, and free places for more.

    Args:
        jobs: Number of tasks at once; None for the default.
        preload: Modules to import once for all tasks.
    """

    def __init__(self, jobs: int | None, preload: Sequence[str]) -> None:
        devices = gpus()
        count = jobs or len(devices) or max(1, min(cores(), _memory() // MEMORY_PER_JOB))
        self.places = [(devices[job % len(devices)] if devices else None) for job in range(count)]
        # OMP_NUM_THREADS limits each task: other processes may need the other cores.
        self.threads = max(1, min(thread_count(), cores() // count))
        self.running: dict[int, _Running] = {}
        # Processes of a fork server start with torch and lightning imported, but without threads and devices. Windows
        # has no fork server.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload([*preload])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.task.name for one in self.running.values())

    @property
    def is_free(self) -> bool:
        return bool(self.places)

    def start(self, task: Task) -> None:
        place = self.places.pop(0)
        reason, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(task, place, self.threads, sender))
        process.start()
        # Close our copy, so that the end of the process closes the pipe.
        sender.close()
        self.running[process.sentinel] = _Running(task, process, place, reason)

    def wait(self) -> Iterator[tuple[Task, str | None]]:
        for sentinel in wait(list(self.running)) if self.running else ():
            one = self.running.pop(cast(int, sentinel))
            one.process.join()
            self.places.append(one.place)
            yield one.task, _failure(one)

    def end(self) -> None:
        for one in self.running.values():
            one.process.terminate()


def gpus() -> list[str]:
    """The available GPUs, as named in CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _memory() -> int:
    """Memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else MEMORY_PER_JOB


def _failure(ended: _Running) -> str | None:
    """The reason of a process's failure: its message, or the signal that killed it; None if it succeeded."""
    exitcode = ended.process.exitcode
    with suppress(EOFError):
        reason: str | None = ended.reason.recv()
        return reason
    return f"killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with {exitcode}"


def _work(task: Task, device: str | None, threads: int, reason: Connection) -> None:
    """Run a task in its new process, with its device or threads, and report the reason of its failure, if it fails."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    reason.send(perform(task, threads))


def _exit_with_parent() -> None:
    """Exit when the benchmark's process ends for any reason."""
    benchmark = multiprocessing.parent_process()
    assert benchmark is not None
    benchmark.join()
    os._exit(1)
