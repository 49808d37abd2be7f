"""What training shares, the attacker's and the defender's: losses, optimisers, schedules, sizes of batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import ParamsT

BATCH = 128
"""Images a step."""
BATCH_PIXELS = BATCH * 64**2
"""Pixels that go through a network at once."""
SMALLEST_BATCH = 8
"""Images that go through a network at once, however large they are."""
LARGEST_SIDE = 8192
"""Height and width of the largest images, in pixels: one alone takes 800 MB in single precision."""


def at_once(pixels: int) -> int:
    """How many images of so many pixels go through a network at once."""
    return min(BATCH, max(SMALLEST_BATCH, BATCH_PIXELS // pixels))


def batch_size(images: Tensor) -> int:
    """How many images like these, (N, C, H, W), are worked on at once."""
    return at_once(images.shape[-1] * images.shape[-2])


def pieces(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Values (N, ...) in parts of almost equal length, of at most `size`."""
    return values.tensor_split(-(-len(values) // size))


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch, without the factor T^2.

    Args:
        student: (N, C) logits.
        teacher: (N, C) logits.
        temperature: T, above 0.
    """
    answers, targets = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(answers, targets, reduction="batchmean", log_target=True)


def cosine(done: float, warmup: float = 0.0) -> float:
    """From 0 to 1 until `warmup`, then to 0 along half a period of the cosine, as `done` goes from 0 to 1."""
    if done < warmup:
        return done / warmup
    return (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def sgd(
    parameters: ParamsT,
    lr: float,
    momentum: float,
    weight_decay: float,
    schedule: Callable[[float], float],
    steps: int,
) -> tuple[SGD, LambdaLR]:
    """SGD whose learning rate follows a schedule, step by step.

    Args:
        parameters: What is trained, as optimisers of torch take it.
        lr: Highest learning rate, above 0.
        momentum: Share of the last step that is kept.
        weight_decay: Strength of the L2 penalty.
        schedule: From the share of the training that is done, in [0, 1], to a factor of `lr`.
        steps: Of the whole training, at least 1.
    """
    optimizer = torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay)
    return optimizer, LambdaLR(optimizer, lambda step: schedule(min(1.0, step / steps)))
