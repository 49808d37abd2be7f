"""Estimate the duration of a task from timed forward passes."""

from __future__ import annotations

import re
import time

import torch
from torch import Tensor, nn

from bdclean.errors import InputError
from bdclean.training import at_once

LIMIT = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
"""A time limit: hours, minutes, seconds."""

FEW = 8
"""Number of images of the first passes."""
QUICK = 0.2
"""Maximum duration of a pass of few images after which a whole batch is timed, in seconds."""
REPEATS = 5
"""Number of timed passes, of which the shortest counts."""
LONG = 0.5
"""Maximum duration of a pass that is repeated, in seconds."""
TRAINING_PASSES = 3
"""Cost of a training step, in forward passes."""
DISTILLATION_PASSES = 4
"""Cost of a training step of student and teacher, in forward passes of one network."""


@torch.no_grad()
def seconds_per_image(network: nn.Module, image_size: int) -> float:
    """Duration of a forward pass per image, in seconds, on the network's device.

    Args:
        network: From images in [0, 1] to logits, in eval mode.
        image_size: Height and width of its images, in pixels.
    """
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    # Use a separate generator, so that timing does not change the random numbers of a seeded run.
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(at_once(image_size**2), 3, image_size, image_size, generator=generator).to(device)
    # Warm up: the first pass allocates memory.
    network(images[:FEW])
    # Few images keep neither a GPU nor several threads busy.
    if _seconds(network, images[:FEW]) > QUICK:
        images = images[:FEW]
    took: list[float] = []
    while len(took) < REPEATS and (not took or took[0] <= LONG):
        took.append(_seconds(network, images))
    # The minimum, as other load on the machine only adds time.
    return min(took) / len(images)


def _seconds(network: nn.Module, images: Tensor) -> float:
    started = time.perf_counter()
    # Copying to the CPU waits for the device.
    network(images).cpu()
    return time.perf_counter() - started


def seconds_of(text: str) -> float:
    """Read a time limit such as `90s`, `20m` or `1h30m`, in seconds.

    Raises:
        InputError: If the text is of another form, or the limit is 0.
    """
    found = LIMIT.fullmatch(text)
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise InputError("budget", text, "expected a time such as 90s, 20m or 1h30m")
    return total


def duration(seconds: float) -> str:
    """A rough duration in words."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 90 * 60:
        minutes = max(2, round(seconds / 60))
        return f"about {minutes} minutes"
    return f"about {max(2, round(seconds / 3600))} hours"
