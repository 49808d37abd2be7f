"""Runs the work of a benchmark in processes of this machine: the room that a cluster engine would take the place of."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch

from bdclean.errors import InputError

MEMORY_PER_JOB = 3 * 2**30
"""Bytes that a small network's cell takes on a CPU, with room to spare."""


@dataclass(frozen=True)
class Task:
    """Something to do in a process of its own.

    Attributes:
        name: What the progress bar calls it.
        log: File for what it prints.
        needs: Names of the tasks that come before it; what needs one that failed is left out.
        work: The function, which has to be importable.
        arguments: Its arguments.
    """

    name: str
    log: Path
    needs: tuple[str, ...]
    work: Callable[..., object]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Progress:
    """What changed.

    Attributes:
        working: Names of the tasks at work.
        ended: The task that ended, if one did.
        failure: Why it failed, if it did.
    """

    working: tuple[str, ...]
    ended: Task | None = None
    failure: str | None = None


def run(tasks: Iterable[Task], jobs: int | None, preload: Sequence[str] = ()) -> Iterator[Progress]:
    """Run tasks, several at once.

    Args:
        tasks: What is to be done.
        jobs: How many at once; by default one a GPU, or without any one a core, as far as there is memory.
        preload: Modules that all of them need.
    """
    pool = _Pool(jobs, preload)
    waiting, done, failed = list(tasks), set[str](), dict[str, str]()
    try:
        while waiting or pool.running:
            for task in list(waiting):
                if reasons := [failed[name] for name in task.needs if name in failed]:
                    waiting.remove(task)
                    yield Progress(pool.names, task, reasons[0])
                elif pool.places and done.issuperset(task.needs):
                    waiting.remove(task)
                    pool.start(task)
            yield Progress(pool.names)
            for task, reason in pool.wait():
                if reason is None:
                    done.add(task.name)
                else:
                    failed[task.name] = reason
                yield Progress(pool.names, task, reason)
    finally:
        pool.end()


@dataclass(frozen=True)
class _Running:
    """A task at work, its process, the device that it has, and where it says why it failed."""

    task: Task
    process: Any
    place: str | None
    reason: Connection


class _Pool:
    """Processes of one task each, and the places that are free for more.

    Args:
        jobs: As in `run`.
        preload: As in `run`.
    """

    def __init__(self, jobs: int | None, preload: Sequence[str]) -> None:
        devices = _devices()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = jobs or len(devices) or max(1, min(cores, _memory() // MEMORY_PER_JOB))
        self.places = [(devices[job % len(devices)] if devices else None) for job in range(count)]
        self.threads = max(1, cores // count)
        self.running: dict[int, _Running] = {}
        # Children of a server have torch and lightning imported already, and nothing else: no threads, no devices.
        # Windows has no such server.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload([*preload])

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks at work."""
        return tuple(one.task.name for one in self.running.values())

    def start(self, task: Task) -> None:
        """Give a task one of the free places."""
        place = self.places.pop(0)
        reason, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(task, place, self.threads, theirs))
        process.start()
        # Only the process holds it now: when that is gone, nothing more comes.
        theirs.close()
        self.running[process.sentinel] = _Running(task, process, place, reason)

    def wait(self) -> Iterator[tuple[Task, str | None]]:
        """Wait for the end of a task at work, if there is one; and why each that ended failed, if it did."""
        for sentinel in wait(list(self.running)) if self.running else ():
            one = self.running.pop(cast(int, sentinel))
            one.process.join()
            self.places.append(one.place)
            yield one.task, _failure(one)

    def end(self) -> None:
        """End all that is at work."""
        for one in self.running.values():
            one.process.terminate()


def _devices() -> list[str]:
    """The GPUs there are, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else MEMORY_PER_JOB


def _failure(ended: _Running) -> str | None:
    """Why a process failed: what it said, or the signal that killed it; None if it did not."""
    exitcode = ended.process.exitcode
    if not exitcode:
        return None
    with suppress(EOFError):
        return str(ended.reason.recv())
    return f"killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with {exitcode}"


def _work(task: Task, device: str | None, threads: int, reason: Connection) -> None:
    """In the new process: its own device or threads, and a file for what is printed."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    # Another benchmark in the folder may be at the same: what it prints stays.
    with task.log.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        task.work(*task.arguments)
    except InputError as error:
        reason.send(str(error))
        raise
    except Exception as error:
        reason.send(f"{type(error).__name__}: {error}")
        raise


def _follow() -> None:
    """End with the benchmark, however that ends: nobody would wait for what is worked out here."""
    benchmark = multiprocessing.parent_process()
    assert benchmark is not None
    benchmark.join()
    os._exit(1)
