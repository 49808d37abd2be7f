"""About how long a task takes, from one timed pass of the network."""

from __future__ import annotations

import time

import torch
from torch import nn

TIMED = 8
"""Images of the timed pass."""
REPEATS = 5
"""Timed passes, of which the shortest counts."""
LONG = 0.5
"""Seconds: a pass that takes longer is not repeated."""
FORWARD_PASSES = 4
"""A training step of student and teacher, in forward passes of one of them."""


@torch.no_grad()
def seconds_per_step(network: nn.Module, image_size: int) -> float:
    """Seconds of a training step for each of its images, on the device of the network.

    Args:
        network: From images in [0, 1] to logits, in eval mode.
        image_size: Height and width of its images, in pixels.
    """
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    # A generator apart: a seeded run draws the same numbers, whether or not a task is timed before it.
    images = torch.rand(TIMED, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    # The first pass allocates memory, and is not counted.
    network(images)
    took = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        # Copying to the CPU waits for the device.
        network(images).cpu()
        took.append(time.perf_counter() - started)
        if took[0] > LONG:
            break
    # Other work on the machine only adds to it.
    return FORWARD_PASSES * min(took) / TIMED


def duration(seconds: float) -> str:
    """A duration in words, as exactly as it can be known beforehand."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 90 * 60:
        minutes = max(2, round(seconds / 60))
        return f"about {minutes} minutes"
    return f"about {max(2, round(seconds / 3600))} hours"
