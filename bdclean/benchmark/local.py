"""Run the tasks of a benchmark in processes of this machine. A cluster engine would replace this file."""

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
"""Memory to allow for a cell with a small network on a CPU, in bytes."""


@dataclass(frozen=True)
class Task:
    """A function call in a separate process.

    Attributes:
        name: Name in the progress bar.
        log: File for its output.
        needs: Names of the tasks that must finish first; if one of them fails, this task is not run.
        work: The function, which has to be importable.
        arguments: Arguments of the function.
    """

    name: str
    log: Path
    needs: tuple[str, ...]
    work: Callable[..., object]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Progress:
    """A change of the state of all tasks.

    Attributes:
        working: Names of the running tasks.
        ended: The task that ended, if any.
        failure: Reason of its failure, if it failed.
    """

    working: tuple[str, ...]
    ended: Task | None = None
    failure: str | None = None


def run(tasks: Iterable[Task], jobs: int | None, preload: Sequence[str] = ()) -> Iterator[Progress]:
    """Run tasks, several at once.

    Args:
        tasks: The tasks.
        jobs: Number of tasks at once; by default one per GPU, or without GPUs one per core if there is enough memory.
        preload: Modules to import once for all tasks.

    Yields:
        Each change.
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
    """A running task, its process, its device, and the connection on which it reports the reason of a failure."""

    task: Task
    process: Any
    place: str | None
    reason: Connection


class _Pool:
    """Running processes, one per task, and free places for more.

    Args:
        jobs: Number of tasks at once; None for the default.
        preload: Modules to import once for all tasks.
    """

    def __init__(self, jobs: int | None, preload: Sequence[str]) -> None:
        devices = gpus()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = jobs or len(devices) or max(1, min(cores, _memory() // MEMORY_PER_JOB))
        self.places = [(devices[job % len(devices)] if devices else None) for job in range(count)]
        self.threads = max(1, cores // count)
        self.running: dict[int, _Running] = {}
        # Processes of a fork server start with torch and lightning imported, but without threads and devices. Windows
        # has no fork server.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload([*preload])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the running tasks."""
        return tuple(one.task.name for one in self.running.values())

    def start(self, task: Task) -> None:
        """Start a task in a free place."""
        place = self.places.pop(0)
        reason, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(task, place, self.threads, sender))
        process.start()
        # Close our copy, so that the end of the process closes the pipe.
        sender.close()
        self.running[process.sentinel] = _Running(task, process, place, reason)

    def wait(self) -> Iterator[tuple[Task, str | None]]:
        """Wait until running tasks end, and yield each of them with the reason of its failure; None if it succeeded."""
        for sentinel in wait(list(self.running)) if self.running else ():
            one = self.running.pop(cast(int, sentinel))
            one.process.join()
            self.places.append(one.place)
            yield one.task, _failure(one)

    def end(self) -> None:
        """Terminate all running tasks."""
        for one in self.running.values():
            one.process.terminate()


def gpus() -> list[str]:
    """The available GPUs, as named in CUDA_VISIBLE_DEVICES."""
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
    if not exitcode:
        return None
    with suppress(EOFError):
        return str(ended.reason.recv())
    return f"killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with {exitcode}"


def _work(task: Task, device: str | None, threads: int, reason: Connection) -> None:
    """Run a task in its new process, with its device or threads, and its output in a file."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    # Append, as another benchmark in the same folder may run the same task.
    with task.log.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        task.work(*task.arguments)
    except InputError as error:
        reason.send(str(error))
        raise
    except Exception as error:
        reason.send(f"{type(error).__name__}: {error}")
        raise


def _exit_with_parent() -> None:
    """Exit when the benchmark's process ends for any reason."""
    benchmark = multiprocessing.parent_process()
    assert benchmark is not None
    benchmark.join()
    os._exit(1)
