"""The interface of engines, which run the tasks of a benchmark, and what they share."""

from __future__ import annotations

import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdclean.errors import InputError


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
        working: Names of the tasks that run; with some engines, also of those that wait for a free machine.
        ended: The task that ended, if any.
        failure: Reason of its failure, if it failed.
    """

    working: tuple[str, ...]
    ended: Task | None = None
    failure: str | None = None


class Engine(ABC):
    """Runs the tasks of a benchmark: on this machine or on many, which share the folder of the benchmark."""

    def devices(self) -> int | None:
        """Number of devices like that of this process that work at once; None if unknown."""
        return None

    def connect(self) -> None:
        """Find the machines before anything else starts.

        Raises:
            InputError: If they cannot be reached.
        """
        return

    @abstractmethod
    def run(self, tasks: Sequence[Task], jobs: int | None, preload: Sequence[str] = ()) -> Iterator[Progress]:
        """Run each task in a process of its own, after the tasks that it needs.

        Args:
            tasks: The tasks, in any order.
            jobs: Number of tasks at once; None for the engine's own choice.
            preload: Modules that all tasks import; an engine can import them once for all.

        Yields:
            Each change. A task ends once, also if it failed, was killed, or was not run because a task that it needs
            failed.
        """


class Pool(ABC):
    """Places for tasks, of which some run."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the running tasks."""

    @property
    @abstractmethod
    def is_free(self) -> bool:
        """Whether one more task can start."""

    @abstractmethod
    def start(self, task: Task) -> None:
        """Start a task in a free place."""

    @abstractmethod
    def wait(self) -> Iterator[tuple[Task, str | None]]:
        """Wait until running tasks end, and yield each of them with the reason of its failure; None if it succeeded."""

    @abstractmethod
    def end(self) -> None:
        """Terminate all running tasks."""


def schedule(tasks: Iterable[Task], pool: Pool) -> Iterator[Progress]:
    """Start each task when the tasks that it needs have ended and a place is free."""
    waiting, done, failed = list(tasks), set[str](), dict[str, str]()
    try:
        while waiting or pool.names:
            for task in list(waiting):
                if reasons := [failed[name] for name in task.needs if name in failed]:
                    waiting.remove(task)
                    failed[task.name] = reasons[0]
                    yield Progress(pool.names, task, reasons[0])
                elif pool.is_free and done.issuperset(task.needs):
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


def perform(task: Task, threads: int) -> str | None:
    """Run a task in this process, with its output in its log.

    Args:
        task: The task.
        threads: Number of threads for computing, also of processes that the task starts.

    Returns:
        The reason of its failure; None if it succeeded.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        # It reads the variable only when it is imported.
        torch.set_num_threads(threads)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with _output_in(task.log):
        try:
            task.work(*task.arguments)
        except InputError as error:
            traceback.print_exc()
            return str(error)
        except Exception as error:  # a task can fail in any way
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
    return None


def cores() -> int:
    """Number of CPU cores that this process can use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _output_in(path: Path) -> Iterator[None]:
    """Append what this process prints, and the processes that it starts, to a file."""
    kept = [os.dup(number) for number in (1, 2)]
    # Append, as a task may be run again.
    with path.open("a") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
