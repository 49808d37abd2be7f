"""Speed-up and memory of several training processes on one machine.

    python benchmarks/scaling.py [--processes 2] [--arch resnet20] [--images 4000] [--source shapes]

Runs `bdclean fit` alternately with one and with several processes of one thread each (one GPU each if there are GPUs),
and measures images per second in the epochs after the first, without validation, and each process's proportional share
of memory. Rates are medians, and the gain is the ratio of medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from pathlib import Path
from statistics import median

import torch
from commands import CONFIG, TIMED, run

EPOCHS = 3


def fit(processes: int, options: argparse.Namespace) -> tuple[list[float], list[int]]:
    """Images per second in each epoch but the first, and the memory of each process, in MiB."""
    words = ["--config", str(CONFIG), "--model.arch", options.arch, "--data.source", options.source]
    words += ["--data.num_train", str(options.images), "--trainer.max_epochs", str(EPOCHS)]
    words += ["--trainer.limit_val_batches", "0", "--trainer.limit_test_batches", "1", "--trainer.logger", "false"]
    words += ["--trainer.enable_checkpointing", "false", "--trainer.devices", str(processes)]
    if processes > 1:
        words += ["--trainer.strategy", "ddp"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(["-m", "bdclean", "fit", *words, *TIMED], folder)
        contents = [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]
    ends = contents[0]["epochs"]
    rates = [options.images / (after - before) for before, after in itertools.pairwise(ends)]
    return rates, [content["memory"] for content in contents]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--images", type=int, default=4000, help="images in an epoch")
    parser.add_argument("--source", default="shapes")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    options.source = str(Path(options.source).resolve()) if Path(options.source).exists() else options.source
    if not torch.cuda.is_available():
        os.environ["OMP_NUM_THREADS"] = "1"
    rates: dict[int, list[float]] = {1: [], options.processes: []}
    memory: dict[int, list[int]] = {}
    for _ in range(options.rounds):
        for processes, found in rates.items():
            more, memory[processes] = fit(processes, options)
            found += more
    print("| processes | images/s | gain | MiB of each |\n|---|---|---|---|")
    for processes, found in rates.items():
        gain = median(found) / median(rates[1])
        print(f"| {processes} | {median(found):.0f} | {gain:.2f} | {', '.join(map(str, memory[processes]))} |")


if __name__ == "__main__":
    main()
