"""Training utilities for attacks and cleansing methods: losses, optimisers, schedules, batch sizes."""

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
"""Images per step."""
BATCH_PIXELS = BATCH * 64**2
"""Maximum pixels per forward pass."""
SMALLEST_BATCH = 8
"""Minimum images per forward pass, regardless of their size."""
LARGEST_SIDE = 8192
"""Height and width of the largest images, in pixels: one takes 800 MB in single precision."""


def at_once(pixels: int) -> int:
    """Number of images per forward pass, for images with the given number of pixels."""
    return min(BATCH, max(SMALLEST_BATCH, BATCH_PIXELS // pixels))


def batch_size(images: Tensor) -> int:
    """Number of images per forward pass, for images like these, (N, C, H, W)."""
    return at_once(images.shape[-1] * images.shape[-2])


def pieces(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Split values (N, ...) into parts of almost equal length, at most `size`."""
    return values.tensor_split(-(-len(values) // size))


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch, without the factor T^2.

    Args:
        student: (N, C) logits.
        teacher: (N, C) logits.
        temperature: T, above 0.
    """
    outputs, targets = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(outputs, targets, reduction="batchmean", log_target=True)


def cosine(done: float, warmup: float = 0.0) -> float:
    """A schedule that rises linearly from 0 to 1 until `warmup`, then falls to 0 along half a cosine period.

    Args:
        done: Share of the training that is done, in [0, 1].
        warmup: Share of the training with a rising factor, in [0, 1).
    """
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
    """SGD with a learning rate that follows a schedule in every step.

    Args:
        parameters: Parameters or parameter groups of a torch optimiser.
        lr: Highest learning rate, above 0.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).
        schedule: Maps the share of the training that is done, in [0, 1], to a factor of `lr`.
        steps: Steps of the whole training, at least 1.
    """
    optimizer = torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay)
    return optimizer, LambdaLR(optimizer, lambda step: schedule(min(1.0, step / steps)))
