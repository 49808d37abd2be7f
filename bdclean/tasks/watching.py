"""What is shown while a scan is under way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from tqdm import tqdm

from bdclean.engine.trainer import Trainer
from bdclean.scanning import Network

BETWEEN, BETWEEN_LINES = 0.1, 60.0
"""Seconds between two states of the bar: in a terminal, and in a file, where each is a line."""


class Watched:
    """A network that counts the images that go through it, on a progress bar.

    Args:
        network: The network.
        bar: The bar.
    """

    def __init__(self, network: Network, bar: tqdm[None]) -> None:
        self.network = network
        self.bar = bar
        self.steps = 0

    def __call__(self, images: Tensor) -> Tensor:
        """As the network does."""
        logits = self.network(images)
        self.bar.update(len(images))
        return logits

    def begin(self, name: str) -> None:
        """Say which step begins."""
        self.steps += 1
        self.bar.set_description(f"Scanning, step {self.steps}: {name}")


@contextmanager
def watched(trainer: Trainer, network: Network) -> Iterator[Watched]:
    """Within it, a progress bar shows how many images have gone through a network, if the Trainer shows any.

    Args:
        trainer: The Trainer.
        network: What is scanned.
    """
    hidden = trainer.progress_bar_callback is None or not trainer.is_global_zero
    interval = BETWEEN if sys.stderr.isatty() else BETWEEN_LINES
    with tqdm(desc="Scanning", unit=" images", disable=hidden, leave=False, mininterval=interval) as bar:
        yield Watched(network, bar)
