"""What a training step of each cleansing method costs, against plain fine-tuning with labels, in one run.

    python benchmarks/method_steps.py [--arch small_cnn] [--epochs 3]

Seconds of the second and later epochs of 2,560 images in batches of 128, without validation.
"""

from __future__ import annotations

import argparse
import time
import warnings

import lightning.pytorch as pl
import torch

from bdclean import cleansing
from bdclean.attacks import BadNets
from bdclean.data import PoisonDataModule
from bdclean.modules import AttackModule
from bdclean.trainer import Trainer, quieten


class Stopwatch(pl.Callback):
    """Keeps when each epoch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.ends.append(time.perf_counter())


def seconds(arch: str, name: str, supervision: str, epochs: int) -> float:
    """Seconds of an epoch, the fastest."""
    data = PoisonDataModule("shapes", BadNets(), num_unlabeled=2560, batch_size=128)
    watch = Stopwatch()
    trainer = Trainer(
        max_epochs=epochs + 1,
        callbacks=[watch],
        logger=False,
        limit_val_batches=0,
        limit_test_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    suspect = AttackModule(arch)
    cleanser = getattr(cleansing, name)(suspect)
    cleanser.supervision = supervision
    with data.defence(supervision == "labels", cleanser.chooses):
        trainer._train(cleanser, data)
    torch.cuda.synchronize() if torch.cuda.is_available() else None
    return min(after - before for before, after in zip(watch.ends, watch.ends[1:], strict=False))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="small_cnn")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    quieten()
    warnings.filterwarnings("ignore")
    base = seconds(options.arch, "FineTune", "labels", options.epochs)
    print(f"an epoch of FineTune with labels, {options.arch}: {base:.2f} s\n")
    print("| method | supervision | epoch / that |\n|---|---|---|")
    for name in cleansing.__all__:
        method = getattr(cleansing, name)
        if name == "Cleanser" or not method.epochs:
            continue
        value = seconds(options.arch, name, "teacher", options.epochs)
        print(f"| {name} | teacher | {value / base:.1f} |", flush=True)


if __name__ == "__main__":
    main()
