"""Checking that files that are almost checkpoints are refused or loaded in bounded memory and time."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bdclean import InputError, attacks
from bdclean.checkpoint import Checkpoint, read, write
from bdclean.errors import Given
from bdclean.inert import guard
from bdclean.modules import Suspect, identify
from bdclean.networks import build_network, recognise_timm
from bdclean.suspects.vetting import described

MEMORY = 1 << 30
"""Maximum additional memory of the process, in bytes, for a file of at most a hundredth of that."""
SECONDS = 2
"""Maximum CPU time for a file."""
GUARDED = 50
"""One in this number of files is first read in the guard's process, which takes longer than the file itself."""
NUMPY = [np.dtype, np.ndarray, np._core.multiarray._reconstruct, np._core.multiarray.scalar, Image.Image, frozenset]
NUMPY += [
    type(np.dtype(name)) for name in ("b1", "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16", "U1", "S1")
]
"""Globals that torch has to allow if a suspect contains them, and so its result."""
Case = tuple[str, str, bytes]
"""Name, suffix and content of a file."""


def judge(path: str, whole: bool = True) -> str:
    """The outcome for a file: the error message, or that the suspect works and can be written.

    Args:
        path: The file.
        whole: Whether to build the network, which takes longer than all the rest.
    """
    try:
        checkpoint = read(path)
        given: dict[str, Any] = {"arch": None, "mean": "none", "std": None}
        if checkpoint.own:
            given = {}
            take_attack(checkpoint)
        if not whole:
            return "read"
        model = Suspect(**identify(checkpoint, given, 32))
        model.load(checkpoint, "ckpt")
    except InputError as error:
        message = str(error)
        if not error.parameter:
            raise
        assert len(message) < 20_000
        return message
    answer = model.eval()(torch.rand(2, 3, model.image_size, model.image_size))
    write(Path("written.pt"), model.network, torch.zeros(1), checkpoint, model.prefix)
    if loads(path):
        assert loads("written.pt")
    return "loaded" if answer.isfinite().all() else "loaded, but its logits are not finite"


def loads(path: str) -> bool:
    """Whether torch loads a file, without bdclean's help."""
    try:
        with torch.serialization.safe_globals(NUMPY):
            torch.load(path, weights_only=True)
    except Exception:  # any error of torch
        return False
    return True


def take_attack(checkpoint: Checkpoint) -> None:
    """Build the attack that a checkpoint claims, as the command line does."""
    said = described(checkpoint)
    if said.attack is not None:
        attack = attacks.ATTACKS[said.attack](**said.attack_options)
        with suppress(RuntimeError):
            attack.restore(checkpoint.trigger)


def judge_all(made: Callable[[], Iterable[Case]], whole: int) -> None:
    """Write the outcome of each case to the file `outcomes`, one line each; for a process with bounded memory.

    Args:
        made: Makes the cases.
        whole: A network is built in one of this number of cases.
    """
    torch.set_num_threads(1)
    # Imports and lookups on first use are not caused by a file.
    torch.save(build_network("small_cnn", 10, 32).state_dict(), "known.pt")
    torch.save(torch.nn.Linear(3, 3).state_dict(), "unknown.pt")
    for path in ("suspect.ckpt", "known.pt", "unknown.pt"):
        judge(path)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    guarded = guard.enduring
    with open("outcomes", "a") as file:
        for number, (name, suffix, data) in enumerate(made()):
            guard.enduring = (lambda _: nullcontext()) if number % GUARDED else guarded
            path = f"case{suffix}"
            Path(path).write_bytes(data)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            began, before = time.process_time(), most_memory()
            try:
                outcome = judge(path, number % whole == 0)
            except BaseException as error:  # what must not happen
                outcome = f"FAILED {type(error).__name__}: {error}"[:500]
                traceback.print_exc()
            signal.setitimer(signal.ITIMER_PROF, 0)
            took = time.process_time() - began, most_memory() - before
            print(json.dumps([name + suffix, outcome, *took]), file=file, flush=True)
            Path(path).unlink()


def most_memory() -> int:
    """Of this process until now, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def judge_apart(made: Callable[[], Iterable[Case]], whole: int = 1) -> int | None:
    """Run `judge_all` in another process, and return its exit code."""
    # The shapes of timm's networks, which are computed once in a process: no file is blamed for these seconds.
    recognise_timm({str(number): torch.zeros(1) for number in range(20)}, Given("ckpt", None))
    process = multiprocessing.get_context("fork").Process(target=judge_all, args=(made, whole))
    process.start()
    process.join()
    return process.exitcode
