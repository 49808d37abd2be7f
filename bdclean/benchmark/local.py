"""Runs the work of a benchmark in processes of this machine: the room that a cluster engine would take the place of."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

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
    devices = _devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = jobs or len(devices) or max(1, min(cores, _memory() // MEMORY_PER_JOB))
    places = [(devices[job % len(devices)] if devices else None) for job in range(count)]
    threads = max(1, cores // count)
    # Children of a server have torch and lightning imported already, and nothing else: no threads, no devices. Windows
    # has no such server.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([*preload])
    waiting, done, failed = list(tasks), set[str](), dict[str, str]()
    running: dict[Any, tuple[Task, Any, str | None]] = {}
    try:
        while waiting or running:
            for task in list(waiting):
                if reasons := [failed[name] for name in task.needs if name in failed]:
                    waiting.remove(task)
                    yield Progress(_names(running), task, reasons[0])
                elif places and done.issuperset(task.needs):
                    waiting.remove(task)
                    place = places.pop(0)
                    process = context.Process(target=_work, args=(task, place, threads))
                    process.start()
                    running[process.sentinel] = task, process, place
            yield Progress(_names(running))
            for sentinel in wait(list(running)) if running else ():
                task, process, place = running.pop(sentinel)
                process.join()
                places.append(place)
                if (reason := _failure(process.exitcode, task.log)) is None:
                    done.add(task.name)
                else:
                    failed[task.name] = reason
                yield Progress(_names(running), task, reason)
    finally:
        for _, process, _ in running.values():
            process.terminate()


def _names(running: dict[Any, tuple[Task, Any, str | None]]) -> tuple[str, ...]:
    return tuple(task.name for task, _, _ in running.values())


def _devices() -> list[str]:
    """The GPUs there are, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else MEMORY_PER_JOB


def _failure(exitcode: int | None, log: Path) -> str | None:
    """Why a process failed: the signal that killed it, or the last that it said."""
    if not exitcode:
        return None
    if exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else f"ended with {exitcode}"


def _work(task: Task, device: str | None, threads: int) -> None:
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
    task.work(*task.arguments)


def _follow() -> None:
    """End with the benchmark, however that ends: nobody would wait for what is worked out here."""
    benchmark = multiprocessing.parent_process()
    assert benchmark is not None
    benchmark.join()
    os._exit(1)
