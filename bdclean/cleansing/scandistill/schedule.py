"""How long `ScanDistill` trains, and at which rates, in each of its phases."""

from __future__ import annotations

import math
from collections.abc import Callable

from bdclean.training import cosine

AIMED = 31_500
"""Images that are trained on while triggers are unlearned, the same ones again and again."""
BLIND = 45_000
"""Images that a re-initialised student is trained on."""
LONGEST = 100
"""Epochs of a phase, at most: few images are not seen for ever."""
AIMED_BATCH = 128
"""Images a step that the rate is meant for while triggers are unlearned: with fewer it is lower, in proportion."""
BLIND_BATCH = 64
"""The same for a re-initialised student, as the root: steadier steps than that give an unknown backdoor back, too."""
WARMUP = 0.3
"""Share of the steps in which the rate rises while triggers are unlearned."""


def epochs(images: int) -> tuple[int, int]:
    """Epochs of so many images: of a re-initialised student, and while triggers are unlearned."""
    blind, aimed = (min(LONGEST, math.ceil(seen / images)) for seen in (BLIND, AIMED))
    return blind, aimed


def first_phase(total: int) -> int:
    """Epochs of a re-initialised student, of so many in all that leave room for a second phase."""
    return max(1, round(total * BLIND / (BLIND + AIMED)))


def aimed_factor(images: int) -> float:
    """Factor of the rate for so many images a step, while triggers are unlearned."""
    return min(1.0, images / AIMED_BATCH)


def blind_factor(images: int) -> float:
    """Factor of the rate for so many images a step, of a re-initialised student."""
    return min(1.0, math.sqrt(images / BLIND_BATCH))


def rising(done: float) -> float:
    """Factor of the rate after a share of the steps: it rises, then falls to 0 along a cosine."""
    # Not from 0, or a training of one step would do nothing.
    return cosine(max(done, 0.01), warmup=WARMUP)


def two_phases(part: float, ratio: float) -> Callable[[float], float]:
    """Factor of the rate after a share of the steps, in two phases.

    Args:
        part: The share of the steps of the first phase, in which the rate falls to 0 along a cosine.
        ratio: The highest rate of the second, as a share of that of the first.
    """

    def factor(done: float) -> float:
        if done < part or part >= 1:
            return cosine(done / part)
        return rising((done - part) / (1 - part)) * ratio

    return factor
