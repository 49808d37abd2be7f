"""Length and learning rate of each phase of `ScanDistill`."""

from __future__ import annotations

import math
from collections.abc import Callable

from bdclean.training import cosine

TARGETED_IMAGES = 31_500
"""Images trained on while triggers are unlearned, repetitions included."""
UNTARGETED_IMAGES = 45_000
"""Images trained on after re-initialisation, repetitions included."""
MAX_EPOCHS = 100
"""Maximum number of epochs of a phase."""
TARGETED_BATCH = 128
"""Images per step for which the learning rate of unlearning is meant; with fewer, it falls in proportion."""
UNTARGETED_BATCH = 64
"""Images per step for which the learning rate after re-initialisation is meant; with fewer, it falls with the square
root, because small steps would restore an unknown backdoor."""
WARMUP_FRACTION = 0.3
"""Fraction of the steps in which the learning rate rises while triggers are unlearned."""


def epochs(images: int) -> tuple[int, int]:
    """Epochs over a number of images: after re-initialisation, and while triggers are unlearned."""
    untargeted, targeted = (min(MAX_EPOCHS, math.ceil(seen / images)) for seen in (UNTARGETED_IMAGES, TARGETED_IMAGES))
    return untargeted, targeted


def first_phase(total: int) -> int:
    """Epochs of the first phase, out of a total that leaves the rest to the second."""
    return max(1, round(total * UNTARGETED_IMAGES / (UNTARGETED_IMAGES + TARGETED_IMAGES)))


def targeted_rate_factor(images: int) -> float:
    """Factor of the learning rate at a batch size, while triggers are unlearned."""
    return min(1.0, images / TARGETED_BATCH)


def untargeted_rate_factor(images: int) -> float:
    """Factor of the learning rate at a batch size, after re-initialisation."""
    return min(1.0, math.sqrt(images / UNTARGETED_BATCH))


def rising(done: float) -> float:
    """Factor of the learning rate at a fraction of the steps: it rises, then falls to 0 along a cosine."""
    # It does not start at 0, so that a training of one step changes something.
    return cosine(max(done, 0.01), warmup=WARMUP_FRACTION)


def two_phases(part: float, ratio: float) -> Callable[[float], float]:
    """Factor of the learning rate at a fraction of the steps, in two phases.

    Args:
        part: Fraction of the steps in the first phase, where the rate falls to 0 along a cosine.
        ratio: Highest rate of the second phase divided by that of the first.
    """

    def factor(done: float) -> float:
        if done < part or part >= 1:
            return cosine(done / part)
        return rising((done - part) / (1 - part)) * ratio

    return factor
