"""Run the tasks of a benchmark on a Ray cluster."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bdclean import first_line
from bdclean.benchmark.engines.base import Engine, Pool, Progress, Task, perform, schedule
from bdclean.errors import InputError, within

CONNECT_SECONDS = 10.0
"""Time for a connection to the cluster, in seconds."""
RETRIES = 3
"""Number of times that a task is run again if its process or its node dies."""


class Ray(Engine):
    """A Ray cluster, on which each cell is one task.

    All nodes need the folder of the benchmark, the images and this program under the same paths.

    Args:
        address: Address of the cluster, `auto` for the cluster that this machine belongs to; by default Ray starts on
            this machine alone.
        cpus: CPU cores for each cell, which can be a fraction.
        gpus: GPUs for each cell: with 0.5, two cells share a GPU.

    Raises:
        InputError: If Ray is not installed, or an argument is out of range.
    """

    def __init__(self, address: str | None = None, cpus: float = 1.0, gpus: float = 0.0) -> None:
        # Importing it starts threads, with which a process cannot be forked safely.
        if importlib.util.find_spec("ray") is None:
            raise InputError("engine", "Ray", 'needs ray: pip install "bdclean[ray]"')
        within("engine.cpus", cpus, 0)
        within("engine.gpus", gpus, 0)
        if gpus > 1 and gpus != int(gpus):
            raise InputError("engine.gpus", gpus, "must be whole, or less than 1")
        self.address = address
        self.cpus = cpus
        self.gpus = gpus

    def connect(self) -> None:
        self._check_address()
        import ray

        if ray.is_initialized():
            return
        # Ray sends its authors statistics unless this is set.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Its notices, such as that clusters ask for a token.
        logging.getLogger("ray").setLevel(logging.ERROR)
        dashboard = None if self.address else False
        try:
            ray.init(self.address or "local", include_dashboard=dashboard, configure_logging=False, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise InputError("engine.address", self.address, f"no Ray cluster there ({first_line(error)})") from error
        for name, option, asked in (("CPU", "cpus", self.cpus), ("GPU", "gpus", self.gpus)):
            most = max(node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"])
            if asked > most:
                ray.shutdown()
                raise InputError(f"engine.{option}", asked, f"no node of the cluster has more than {most:g}")

    def _check_address(self) -> None:
        """Refuse an address at which nothing listens: Ray itself would try for minutes."""
        host, _, port = (self.address or "").rpartition("://")[2].rpartition(":")
        if port.isdigit():
            try:
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            except (OSError, OverflowError) as error:
                raise InputError(
                    "engine.address", self.address, f"no Ray cluster there ({first_line(error)})"
                ) from error

    def run(self, tasks: Sequence[Task], jobs: int | None, preload: Sequence[str] = ()) -> Iterator[Progress]:
        import ray

        own = not ray.is_initialized()
        self.connect()
        try:
            yield from schedule(tasks, _Calls(jobs, self.cpus, self.gpus))
        finally:
            if own:
                ray.shutdown()


class _Calls(Pool):
    """Tasks that Ray runs, or that wait for a free node.

    Args:
        jobs: Number of tasks at once; None for any number.
        cpus: CPU cores for each.
        gpus: GPUs for each.
    """

    def __init__(self, jobs: int | None, cpus: float, gpus: float) -> None:
        import ray

        self.jobs = jobs
        self.threads = max(1, int(cpus))
        # A process for each task, as in other engines.
        options: dict[str, Any] = {"max_calls": 1, "max_retries": RETRIES, "num_cpus": cpus, "num_gpus": gpus}
        self.call = ray.remote(**options)(_call)
        self.running: dict[Any, Task] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.running.values())

    @property
    def is_free(self) -> bool:
        return self.jobs is None or len(self.running) < self.jobs

    def start(self, task: Task) -> None:
        variables = {name: value for name, value in os.environ.items() if name.startswith("BDCLEAN_")}
        self.running[self.call.remote(task, self.threads, os.getcwd(), variables)] = task

    def wait(self) -> Iterator[tuple[Task, str | None]]:
        import ray

        ended, _ = ray.wait([*self.running]) if self.running else ((), ())
        for one in ended:
            task = self.running.pop(one)
            try:
                reason = ray.get(one)
            except ray.exceptions.RayTaskError as error:
                # A node without this program, or without the folder.
                reason = f"{type(error.cause).__name__}: {first_line(error.cause)}"
            except ray.exceptions.RayError as error:
                reason = f"killed ({type(error).__name__}: {first_line(error)})"
            yield task, reason

    def end(self) -> None:
        import ray

        for one in self.running:
            ray.cancel(one, force=True)


def _call(task: Task, threads: int, folder: str, variables: Mapping[str, str]) -> str | None:
    """Run a task on a node of the cluster, in the folder and with the variables of the benchmark."""
    os.chdir(folder)
    os.environ.update(variables)
    return perform(task, threads)
