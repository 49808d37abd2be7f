"""Estimate the duration of a task from one timed forward pass."""

from __future__ import annotations

import time

import torch
from torch import nn

TIMED = 8
"""Number of images in the timed pass."""
REPEATS = 5
"""Number of timed passes, of which the shortest counts."""
LONG = 0.5
"""Maximum duration of a pass that is repeated, in seconds."""
FORWARD_PASSES = 4
"""Cost of a training step of student and teacher, in forward passes of one network."""


@torch.no_grad()
def seconds_per_step(network: nn.Module, image_size: int) -> float:
    """Duration of a training step per image, in seconds, on the network's device.

    Args:
        network: From images in [0, 1] to logits, in eval mode.
        image_size: Height and width of its images, in pixels.
    """
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    # Use a separate generator, so that timing does not change the random numbers of a seeded run.
    images = torch.rand(TIMED, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    # Warm up: the first pass allocates memory.
    network(images)
    took = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        # Copying to the CPU waits for the device.
        network(images).cpu()
        took.append(time.perf_counter() - started)
        if took[0] > LONG:
            break
    # The minimum, as other load on the machine only adds time.
    return FORWARD_PASSES * min(took) / TIMED


def duration(seconds: float) -> str:
    """A rough duration in words."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 90 * 60:
        minutes = max(2, round(seconds / 60))
        return f"about {minutes} minutes"
    return f"about {max(2, round(seconds / 3600))} hours"
