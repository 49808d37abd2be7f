"""What many attacks use: their options' checks, random numbers of a seed of their own, lengths in proportion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bdclean import errors

Lookup = Callable[[Tensor], Tensor]
"""From the numbers of training images to the images: (N, C, H, W) float in [0, 1]."""
PAPER_SIZE = 32
"""Side of the images, in pixels, that sizes of triggers are given for: on others they are scaled."""


def within(name: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
    """Check an option of an attack, by its name, as `bdclean.errors.within` does."""
    errors.within(f"data.attack.{name}", value, low, high, above)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Random numbers that are the same for the same seed; those outside stay what they would have been.

    Args:
        seed: Of them.
        device: Whose they are besides those of the CPU, if it is a GPU.
    """
    gpus = [] if device is None or device.type != "cuda" else [device]
    with torch.random.fork_rng(devices=gpus):
        # Not torch.manual_seed, which also seeds the other devices.
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def scaled(pixels: int, image_size: int) -> int:
    """A length that is given for images of 32 pixels, on images of another size: in proportion, but never less."""
    return max(pixels, round(pixels * image_size / PAPER_SIZE))
