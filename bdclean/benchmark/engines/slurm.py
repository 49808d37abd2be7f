"""Run the tasks of a benchmark as array jobs of SLURM, which submitit submits."""

from __future__ import annotations

import io
import itertools
import shutil
import tempfile
import time as clock
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bdclean import first_line
from bdclean.benchmark.engines.base import Engine, Progress, Task, cores, perform
from bdclean.errors import InputError, within

LARGEST_ARRAY = 1000
"""Number of tasks in an array job; SLURM's own limit is 1001 by default."""
POLL_SECONDS = 1.0
"""Pause between two looks at all jobs, in seconds."""


class Slurm(Engine):
    """Array jobs of SLURM: one of the suspects, then one of the cells.

    All machines of the partition need the folder of the benchmark, the images and this program under the same paths.
    `--jobs` limits the number of cells that run at once.

    Args:
        partition: Partition of the jobs; by default that of the cluster.
        time: Time limit of a cell, in minutes.
        memory: Memory of a cell, in GiB.
        gpus: GPUs of a cell.
        cpus: CPU cores of a cell.
        requeues: Number of times that a cell starts again after it exceeded its time limit. A cell that was preempted
            always starts again.
        parameters: More options of `sbatch`, without dashes: `{account: vision, constraint: a100}`; by default
            none.
        executor: `slurm`; or, to try the benchmark without a cluster, submitit's `local` (processes of this machine) or
            `debug` (this process).

    Raises:
        InputError: If submitit is not installed, or an argument is out of range.
    """

    def __init__(
        self,
        partition: str | None = None,
        time: int = 240,
        memory: float = 8.0,
        gpus: int = 0,
        cpus: int = 4,
        requeues: int = 1,
        parameters: dict[str, Any] | None = None,
        executor: Literal["slurm", "local", "debug"] = "slurm",
    ) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise InputError("engine", "Slurm", 'needs submitit: pip install "bdclean[slurm]"') from error
        within("engine.time", time, 1)
        within("engine.memory", memory, 0, above=True)
        within("engine.gpus", gpus, 0)
        within("engine.cpus", cpus, 1)
        within("engine.requeues", requeues, 0)
        self.executor = executor
        self.cpus = cpus
        self.requeues = requeues
        self.options: dict[str, Any] = {
            "timeout_min": time,
            "mem_gb": memory,
            "gpus_per_node": gpus or None,
            "cpus_per_task": cpus,
            "slurm_partition": partition,
            "slurm_job_name": "bdclean",
            "slurm_additional_parameters": parameters or {},
        }

    def connect(self) -> None:
        missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        if self.executor == "slurm" and missing:
            raise InputError(
                "engine",
                "Slurm",
                f"this machine has no {missing[0]}; run the benchmark on a machine that can submit jobs",
            )

    def run(self, tasks: Sequence[Task], jobs: int | None, preload: Sequence[str] = ()) -> Iterator[Progress]:
        if not tasks:
            return
        self.connect()
        logs = tasks[0].log.parent / "submitit"
        logs.mkdir(parents=True, exist_ok=True)
        # A folder for each run, so that outcomes of earlier runs are not read.
        folder = Path(tempfile.mkdtemp(dir=logs)).absolute()
        size = LARGEST_ARRAY if self.executor == "slurm" else jobs or max(1, cores() // self.cpus)
        running: list[_Running] = []
        try:
            for batch in _batches(tasks, size):
                if self.executor != "slurm":
                    # Only SLURM itself starts a job after others.
                    yield from _follow(running)
                running += self._submit(batch, folder, jobs, running[-1] if running else None)
            yield from _follow(running)
        finally:
            self._cancel(running, folder)

    def _submit(self, batch: Sequence[Task], folder: Path, jobs: int | None, before: _Running | None) -> list[_Running]:
        """Submit tasks as one array job, which starts after the array job of another task."""
        import submitit

        # submitit's executors have different arguments.
        limit = {} if self.executor == "debug" else {f"{self.executor}_max_num_timeout": self.requeues}
        executor = submitit.AutoExecutor(folder, cluster=self.executor, **limit)
        executor.update_parameters(**{name: value for name, value in self.options.items() if value is not None})
        if before is not None:
            # Also if some of them fail: a task that needs a failed one ends at once.
            executor.update_parameters(slurm_dependency=f"afterany:{before.array}")
        if jobs is not None:
            executor.update_parameters(slurm_array_parallelism=jobs)
        try:
            # submitit also prints the errors of sbatch. Variables of a job that this command runs in would conflict.
            with redirect_stderr(io.StringIO()), submitit.helpers.clean_env(), executor.batch():
                submitted = [executor.submit(_Work(task, self.cpus, folder)) for task in batch]
        except submitit.core.utils.FailedJobError as error:
            raise InputError("engine", "Slurm", f"sbatch refuses the jobs ({first_line(error)})") from error
        return [_Running(task, job, folder) for task, job in zip(batch, submitted, strict=True)]

    def _cancel(self, running: Sequence[_Running], folder: Path) -> None:
        """Cancel jobs; those of SLURM with one command for each array."""
        import submitit

        jobs = [one.job for one in running]
        if self.executor == "slurm":
            jobs = [submitit.SlurmJob(folder, array) for array in {one.array for one in running}]
        for job in jobs:
            job.cancel(check=False)


@dataclass(frozen=True)
class _Running:
    """A submitted task, its job, and the folder of the outcomes of all tasks."""

    task: Task
    job: Any
    folder: Path

    @property
    def array(self) -> str:
        """Identifier of its array job."""
        return str(self.job.job_id).partition("_")[0]


@dataclass(frozen=True)
class _Work:
    """What a job runs: a task with a number of threads, whose outcome it writes into a folder."""

    task: Task
    threads: int
    folder: Path

    def __call__(self) -> None:
        """Run the task, unless one that it needs has failed."""
        failures = [failure for name in self.task.needs if (failure := _failure(self.folder, name)) is not None]
        failure = failures[0] if failures else perform(self.task, self.threads)
        _outcome(self.folder, self.task.name).write_text(failure or "", encoding="utf-8")

    def checkpoint(self) -> Any:
        """What submitit runs instead after a time-out or a preemption: the same again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _outcome(folder: Path, name: str) -> Path:
    return folder / f"{name}.outcome"


def _failure(folder: Path, name: str, killed: str = "killed") -> str | None:
    """The reason of the failure of a task that has ended, `killed` if it has left none; None if it succeeded."""
    try:
        return _outcome(folder, name).read_text(encoding="utf-8") or None
    except FileNotFoundError:
        return killed


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    """Divide tasks into batches of limited size, each of which needs nothing but earlier batches."""
    known = {task.name: task for task in tasks}

    def depth(task: Task) -> int:
        return max((1 + depth(known[name]) for name in task.needs), default=0)

    by_depth = sorted(tasks, key=depth)
    for _, level in itertools.groupby(by_depth, depth):
        members = list(level)
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _follow(running: list[_Running]) -> Iterator[Progress]:
    """Wait until all jobs end, and remove each from the list when it does."""
    while running:
        for one in [one for one in running if one.job.done()]:
            running.remove(one)
            # Such as TIMEOUT, OUT_OF_MEMORY or NODE_FAIL.
            failure = _failure(one.folder, one.task.name, f"killed, in state {one.job.state}")
            yield Progress(_working(running), one.task, failure)
        yield Progress(_working(running))
        if running:
            clock.sleep(POLL_SECONDS)


def _working(running: Sequence[_Running]) -> tuple[str, ...]:
    return tuple(one.task.name for one in running if one.job.state == "RUNNING")
