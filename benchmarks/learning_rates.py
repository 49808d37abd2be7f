"""Choose the learning rates of the benchmark's configurations: for each method, the highest that costs little.

    python benchmarks/learning_rates.py [--source shapes] [--num_unlabeled 500] [--batch_size 32] [--epochs 12]

Trains one suspect (BadNets, seed 0), cleanses it with each learning rate, and prints the agreement with the suspect on
1,000 validation images. The choice uses neither triggers nor labels nor test images.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import lightning.pytorch as pl

from bdclean import cleansing
from bdclean.attacks import BadNets
from bdclean.data import PoisonDataModule
from bdclean.engine.quiet import quieten
from bdclean.engine.trainer import Trainer
from bdclean.modules import AttackModule

RATES = {
    "Distill": (0.01, 0.03, 0.1),
    "DistillCleanseModule": (0.01, 0.03, 0.1),
    "FineTune": (0.01, 0.03, 0.1),
    "FinePrune": (0.01, 0.03, 0.1),
    "NAD": (0.01, 0.03, 0.1),
    "MCR": (0.01, 0.03, 0.1),
    "FTSAM": (0.01, 0.03, 0.1),
    "FST": (0.01, 0.03, 0.1),
    "Reinitialise": (0.01, 0.03, 0.1),
    "NPD": (1e-4, 3e-4, 0.001, 0.003, 0.01),
    "IBAU": (1e-4, 3e-4, 1e-3),
    "SAU": (1e-4, 3e-4, 1e-3),
}
"""Rates to try: around the papers' rates, which are for networks that were trained with 0.01 or 0.1."""
OTHER: dict[str, dict[str, Any]] = {"FST": {"alpha": 0.02}, "Reinitialise": {"supervision": "teacher"}}
LEAST = 95.0
"""Minimum agreement of a chosen rate, in percent."""


def trainer(epochs: int) -> Trainer:
    """A Trainer without logs, checkpoints and validation."""
    return Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False, limit_val_batches=0
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="shapes")
    parser.add_argument("--num_unlabeled", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--fit_epochs", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(RATES))
    options = parser.parse_args()
    quieten()
    warnings.filterwarnings("ignore")
    pl.seed_everything(0)
    data = PoisonDataModule(options.source, BadNets(poison_rate=0.1, margin=1), num_val=1000, crop_padding=2)
    suspect = AttackModule("small_cnn", lr=0.3, schedule="cosine", warmup=0.2)
    trainer(options.fit_epochs).train(suspect, data)
    few = PoisonDataModule(
        options.source,
        num_unlabeled=options.num_unlabeled,
        batch_size=options.batch_size,
        num_val=1000,
    )
    print("| method | rate | val/agreement | chosen |\n|---|---|---|---|")
    for name in options.methods:
        rows = []
        for rate in RATES[name]:
            pl.seed_everything(0)
            cleanser = getattr(cleansing, name)(suspect, lr=rate, **OTHER.get(name, {}))
            cleanser.defence = few.defence(False, cleanser.needs_selection_images)
            trainer(options.epochs).train(cleanser, cleanser.defence)
            judge = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
            (found,) = judge.validate(cleanser, few, verbose=False)
            rows.append((rate, found["val/agreement"]))
        kept = [rate for rate, agreement in rows if agreement >= LEAST]
        chosen = max(kept) if kept else min(RATES[name])
        for rate, agreement in rows:
            print(f"| {name} | {rate:g} | {agreement:.1f} | {'*' if rate == chosen else ''} |", flush=True)


if __name__ == "__main__":
    main()
