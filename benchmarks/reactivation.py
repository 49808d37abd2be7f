"""Measure how fast a backdoor comes back when a network is fine-tuned on a few triggered images.

    python benchmarks/reactivation.py [--results reactivation.csv] [--counts 5 50] CHECKPOINT ... [-- OPTIONS]

Takes checkpoints for `bdclean test`, with a trigger in the checkpoint or among the options. Fine-tunes each of them on
`--counts` triggered validation images with the target label and a batch of clean images with true labels: SGD with
learning rate 0.01 and momentum 0.9, all images in each step. Writes ACC and ASR on the test images after
several numbers of steps as CSV. Compare with a network that never had a backdoor, as it can learn the trigger too.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.checkpoint import read
from bdclean.cli import main as cli
from bdclean.cli.verbs import Verbs
from bdclean.data import PoisonDataModule
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from bdclean.reporting.measures import measured

STEPS = (0, 1, 2, 5, 10, 20, 50)
RATE = 0.01
rows: list[list[Any]] = []
counts: list[int] = []


class Reactivating(Verbs):
    """A command line whose `test` fine-tunes and measures repeatedly."""

    def test(  # type: ignore[override]
        self, model: Classifier, datamodule: PoisonDataModule, verbose: bool = False, **options: Any
    ) -> list[Mapping[str, float]]:
        """Fine-tune the network, and measure it after each number of steps."""
        start = copy.deepcopy(model.network.state_dict())
        pairs = [next(iter(loader)) for loader in datamodule.val_dataloader()]
        for count in counts:
            model.network.load_state_dict(start)
            images, classes = some(pairs, count)
            optimizer = torch.optim.SGD(model.network.parameters(), RATE, momentum=0.9)
            model.requires_grad_(True)
            for step in range(max(STEPS) + 1):
                if step in STEPS:
                    found = measured(super().test(model, datamodule=datamodule, verbose=False), {}).percents()
                    rows.append([count, step, found["acc"], found["asr"]])
                    model.requires_grad_(True)
                loss = F.cross_entropy(model.train()(images), classes)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        return []


def some(pairs: list[Batch], count: int) -> tuple[Tensor, Tensor]:
    """`count` triggered images with target labels, and a batch of clean images with true labels."""
    if len(pairs) < 2:
        raise SystemExit("there is no trigger: name one after --")
    (clean, _, labels, _), (triggered, targets, _, _) = pairs
    assert labels is not None
    assert targets is not None
    if count > len(triggered):
        raise SystemExit(f"--counts {count}: a batch has {len(triggered)} triggered images, --data.batch_size more")
    return torch.cat([triggered[:count], clean]), torch.cat([targets[:count], labels])


def main() -> None:
    """Write a table."""
    words = sys.argv[1:]
    options = words[words.index("--") + 1 :] if "--" in words else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--results", type=Path, default=Path("reactivation.csv"))
    parser.add_argument("--counts", nargs="+", type=int, default=[5, 50])
    arguments = parser.parse_args(words[: words.index("--")] if "--" in words else words)
    counts.extend(arguments.counts)
    cli.Verbs = Reactivating  # type: ignore[attr-defined]
    with arguments.results.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["checkpoint", "images", "steps", "acc", "asr"])
        for path in arguments.checkpoints:
            rows.clear()
            # These suspects are trusted, so that their images may be read.
            images = f"--data.source={read(str(path)).data['source']}"
            quiet = ("--trainer.logger=false", "--trainer.enable_progress_bar=false")
            cli.main(["test", "--ckpt", str(path), images, *quiet, *options])
            writer.writerows([path, *row] for row in rows)
            file.flush()
            for row in rows:
                print(f"| {path} | {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
