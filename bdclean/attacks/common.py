"""Utilities of attacks: checking options, seeded random numbers, scaling lengths to the image size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bdclean import errors

Lookup = Callable[[Tensor], Tensor]
"""Maps numbers of training images to the images: (N, C, H, W) float in [0, 1]."""
Part = dict[str, Tensor]
"""A part of a preparation."""
Keep = Callable[[str, Callable[[], Part]], Part]
"""Returns the part of a preparation with a name, from disk or by making it."""
PAPER_SIZE = 32
"""Side of the images for which sizes of triggers are given, in pixels: for other images they are scaled."""


def make_part(name: str, make: Callable[[], Part]) -> Part:
    """Make a part of a preparation, without keeping it."""
    return make()


def within(name: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
    """Check an option of an attack, by its name, as `bdclean.errors.within` does."""
    errors.within(f"data.attack.{name}", value, low, high, above)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the random numbers within the context, without affecting those outside.

    Args:
        seed: The seed.
        device: A GPU whose random numbers are seeded too.
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
    """Scale a length for images of 32 pixels to another image size, in proportion, but never below itself."""
    return max(pixels, round(pixels * image_size / PAPER_SIZE))
