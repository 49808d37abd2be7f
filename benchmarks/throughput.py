"""Training speed relative to bare forward and backward passes, and to the usual pipeline.

    python benchmarks/throughput.py [--archs small_cnn resnet20 resnet18] [--commands small_cnn]

For `fit` (BadNets) and `cleanse` (the paper's method), on the embedded images:

- floor: bare forward and backward passes on batches that are on the device, channels last, in the device's fastest
  precision; for `cleanse` also the teacher's forward pass with folded batch norms. No optimiser, no data, no Trainer.
- ours: whole epochs of the Trainer, from the end of one to the end of the next, without validation.
- usual: the same step in a plain loop with the usual data pipeline: PIL images, torchvision's transforms per image, a
  DataLoader with worker processes, contiguous layout, float32, the loss read in each step; see `usual.py`.

They alternate, one epoch each, so that other load on the machine affects all of them; rates are medians over the
rounds, and ratios are medians of the ratios of each round.

Then it runs the commands `bdclean fit` and `bdclean cleanse` on the embedded images: seconds by phase, including
start-up, peak memory, and figures; see `commands.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import commands
import lightning.pytorch as pl
import torch
from torch import Tensor
from usual import BATCH, MEAN, STD, Step, usual

from bdclean import tasks
from bdclean.attacks import BadNets
from bdclean.cleansing import DistillCleanseModule
from bdclean.data import PoisonDataModule
from bdclean.data.shapes import SIDE, draw_shapes
from bdclean.engine.precision import computes_in_bf16
from bdclean.engine.process import keep_memory
from bdclean.engine.quiet import quieten
from bdclean.engine.trainer import Trainer
from bdclean.modules import AttackModule
from bdclean.networks import folded

NAMES = ("floor", "ours", "usual")
MOST = 20_000
"""Maximum number of images in an epoch."""


def now(device: torch.device) -> float:
    """The time after a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Turns(pl.Callback):
    """Times each epoch, and runs the other two pipelines between epochs.

    Args:
        floor: Runs bare passes over the images of an epoch.
        usual: Connection to the process with the usual pipeline.
        device: Device to synchronise before each time is taken.
    """

    def __init__(self, floor: Callable[[], None], usual: Connection, device: torch.device) -> None:
        self.floor = floor
        self.usual = usual
        self.device = device
        self.seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        self.started: float | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        ended = now(self.device)
        self.floor()
        floor = now(self.device) - ended
        self.usual.send(True)
        usual = self.usual.recv()
        if self.started is not None:  # the first round warms up
            for name, value in zip(NAMES, (floor, ended - self.started, usual), strict=True):
                self.seconds[name].append(value)
        self.started = now(self.device)


class Floor:
    """Bare passes over images that are on the device."""

    def __init__(self, arch: str, verb: str, device: torch.device) -> None:
        self.step = Step(arch, verb, device, torch.channels_last)
        if self.step.teacher is not None:
            self.step.teacher = folded(self.step.teacher, SIDE)
        self.device = device
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.mixed = torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device))

    def take(self, images: int) -> None:
        """Put images on the device."""
        pixels, labels = draw_shapes(images, 0)
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        normalised = (pixels.permute(0, 3, 1, 2).float().div(255) - mean) / std
        normalised = normalised.to(self.device, memory_format=torch.channels_last)
        self.batches = list(zip(normalised.split(BATCH), labels.to(self.device).split(BATCH), strict=True))

    def __call__(self) -> None:
        """Run one pass over all images."""
        for images, labels in self.batches:
            self.step.network.zero_grad()
            with self.mixed:
                loss = self.step(images, labels)
            torch.autograd.backward(loss)


def ours(arch: str, verb: str, images: int, rounds: int, turns: Turns) -> None:
    """Run epochs of the Trainer, as the command line does."""
    options: dict[str, Any] = {
        "max_epochs": rounds + 1,
        "callbacks": [turns],
        "limit_val_batches": 0,
        "limit_test_batches": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    # Either the attacker's part or the defender's can have this size.
    parts = ("num_train",) if verb == "fit" else ("num_held_out", "num_unlabeled")
    data = PoisonDataModule("shapes", BadNets(), **dict.fromkeys(parts, images))
    with tempfile.TemporaryDirectory() as folder:
        trainer, model = Trainer(default_root_dir=folder, **options), AttackModule(arch)
        if verb == "fit":
            tasks.train(trainer, model, data, output=str(Path(folder, "suspect.ckpt")))
        else:
            tasks.cleanse(trainer, model, data, lambda suspect: DistillCleanseModule(suspect, ratios=0), scan=False)
    # Otherwise the rates would be wrong.
    assert trainer.num_training_batches * BATCH == images


def measure(arch: str, verb: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second in each round, by pipeline."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    floor = Floor(arch, verb, device)
    floor.take(2 * BATCH)
    floor()
    started = now(device)
    floor()
    fitting = 2 * options.seconds / (now(device) - started)
    images = BATCH * max(2, min(round(fitting), MOST // BATCH))
    floor.take(images)
    with usual(arch, verb, images, options.workers) as connection:
        turns = Turns(floor, connection, device)
        ours(arch, verb, images, options.rounds, turns)
    return {name: [images / seconds for seconds in turns.seconds[name]] for name in NAMES}


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table."""
    yield "| network | verb | ours / floor | ours / usual | floor | ours | usual (images/s) |"
    yield "|---|---|---|---|---|---|---|"
    for arch in options.archs:
        for verb in ("fit", "cleanse"):
            rates = measure(arch, verb, options)
            ratios = {
                name: median(mine / other for mine, other in zip(rates["ours"], rates[name], strict=True))
                for name in ("floor", "usual")
            }
            medians = " | ".join(f"{median(values):.0f}" for values in rates.values())
            yield f"| {arch} | {verb} | {ratios['floor']:.0%} | {ratios['usual']:.2f} | {medians} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="*", default=["small_cnn", "resnet20", "resnet18"])
    parser.add_argument("--seconds", type=float, default=6, help="approximate duration of an epoch of bare passes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4, help="processes that feed the usual pipeline")
    parser.add_argument(
        "--commands", nargs="*", default=["small_cnn"], metavar="ARCH", help="networks of whole commands"
    )
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="options of whole commands; must come last"
    )
    options = parser.parse_args()
    quieten()
    warnings.filterwarnings("ignore")
    for table in (rows(options), commands.rows(options.commands, options.options)):
        for line in table:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    keep_memory()
    main()
