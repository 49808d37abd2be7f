"""Speed of a training step with torch.compile and with CUDA graphs, relative to the same step without them.

    python benchmarks/compiled.py [--archs resnet18] [--commands fit cleanse] [--seconds 2] [--rounds 5]

A step is the floor of throughput.py: forward and backward passes on images that are on the device, channels last, in
the device's fastest precision. The variants take turns; ratios are medians over the rounds. CUDA graphs need a GPU.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median

import torch
from throughput import Floor, now

from bdclean.engine.process import keep_memory
from bdclean.engine.quiet import quieten

MODES = {"eager": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}
"""The variants, and their modes of `torch.compile`."""


def variant(arch: str, verb: str, mode: str | None, device: torch.device) -> Callable[[], None]:
    """A step of one batch, compiled in a mode or not."""
    floor = Floor(arch, verb, device)
    floor.take(128)
    if mode is not None:
        floor.step.network = torch.compile(floor.step.network, mode=mode)
        if floor.step.teacher is not None:
            floor.step.teacher = torch.compile(floor.step.teacher, mode=mode)
    return floor


def seconds(step: Callable[[], None], least: float, device: torch.device) -> float:
    """Seconds of a step, the mean over at least some seconds."""
    started, steps = now(device), 0
    while (took := now(device) - started) < least:
        step()
        steps += 1
    return took / max(1, steps)


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modes = {name: mode for name, mode in MODES.items() if device.type == "cuda" or name != "CUDA graphs"}
    yield "| network | command | variant | relative speed | images/s | until the first step (s) |"
    yield "|---|---|---|---|---|---|"
    for arch in options.archs:
        for verb in options.commands:
            steps, first = {}, {}
            for name, mode in modes.items():
                started = time.perf_counter()
                steps[name] = variant(arch, verb, mode, device)
                steps[name]()
                first[name] = now(device) - started
            rounds = [
                {name: seconds(step, options.seconds, device) for name, step in steps.items()}
                for _ in range(options.rounds)
            ]
            for name in modes:
                ratio = median(one["eager"] / one[name] for one in rounds)
                rate = 128 / median(one[name] for one in rounds)
                yield f"| {arch} | {verb} | {name} | {ratio:.2f} | {rate:.0f} | {first[name]:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="*", default=["resnet18"])
    parser.add_argument("--commands", nargs="*", default=["fit", "cleanse"], choices=["fit", "cleanse"])
    parser.add_argument("--seconds", type=float, default=2, help="minimum duration of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    quieten()
    warnings.filterwarnings("ignore")
    for line in rows(options):
        print(line, flush=True)


if __name__ == "__main__":
    keep_memory()
    main()
