"""Tasks for tests of engines. They import little, as each process of an engine imports this module."""

import os
import signal
import time
from pathlib import Path

from bdclean.benchmark.engines.base import Task
from bdclean.errors import InputError


def act(how: str, note: str) -> None:
    """Note the start, and succeed or fail."""
    with Path(note).open("a") as file:
        file.write(f"{how} {os.environ['OMP_NUM_THREADS']}\n")
    print(f"this is {how}")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raises":
        raise ValueError("not this way")
    if how == "refused":
        raise InputError("data.seed", "x", "why")
    if how == "timed out" and Path(note).read_text().count("\n") == 1:
        # The signal that SLURM sends shortly before the end.
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(60)


def wait_for(note: str, released: str) -> None:
    """Note the process and the node, and wait for a file."""
    with Path(note).open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('NODE', '')}\n")
    while not Path(released).exists():
        time.sleep(0.1)


def task(name: str, how: str = "succeeds", *needs: str) -> Task:
    return Task(name, Path(f"logs/{name}.log"), needs, act, (how, f"{name}.started"))


def waiting(name: str, note: str, released: str) -> Task:
    return Task(name, Path(f"logs/{name}.log"), (), wait_for, (note, released))
