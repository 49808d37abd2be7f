"""Metrics in percent: pure functions first, then the torchmetrics that accumulate them.

ACC is the share of clean images that are predicted as their true class. ASR is the share of triggered images, of
classes other than the target, that are predicted as the target class; RA is the share of the same images that are
predicted as their true class. Agreement is the share of images on which two networks predict the same class. Without an
image that counts, each of them is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

NORMAL_95 = 1.959964
"""Standard deviations on either side of the mean that contain 95 % of a normal distribution."""


@dataclass(frozen=True)
class Share:
    """A number of hits among a number of images.

    Attributes:
        hits: Number of hits.
        images: Number of images, at least 1.
    """

    hits: int
    images: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share, in percent.

        Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927. Unlike the
        normal approximation it is accurate for few images, and for shares near 0 or 100 %.
        """
        share, square = self.hits / self.images, NORMAL_95**2
        centre = share + square / (2 * self.images)
        reach = NORMAL_95 * math.sqrt(share * (1 - share) / self.images + square / (4 * self.images**2))
        low, high = ((centre + side * reach) / (1 + square / self.images) for side in (-1, 1))
        return 100 * max(0.0, low), 100 * min(1.0, high)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Which images are predicted as their true class: ACC is the share of them.

    Args:
        logits: (N, C) scores.
        labels: (N,) true classes.

    Returns:
        (N,) bool.
    """
    return logits.argmax(1) == labels


def attack_successes(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Which triggered images are predicted as the target class: ASR is the share of them.

    Args:
        logits: (N, C) scores of triggered images.
        targets: (N,) target classes of the attack.
        labels: (N,) true classes.

    Returns:
        (N,) bool, False where the target is the true class: such images do not count.
    """
    return (logits.argmax(1) == targets) & (targets != labels)


def robust_successes(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Which triggered images are predicted as their true class in spite of the trigger: RA is the share of them.

    Arguments and result are those of `attack_successes`.
    """
    return correct(logits, labels) & (targets != labels)


def agreements(logits: Tensor, others: Tensor) -> Tensor:
    """Whether two networks, with scores (N, C) each, predict the same class: (N,) bool."""
    return logits.argmax(1) == others.argmax(1)


def defense_effectiveness_rate(suspect: tuple[float, float], cleansed: tuple[float, float]) -> float:
    """DER in percent, from (ACC, ASR) before and after: 100 if the backdoor is gone at no cost, 50 without any change.

    Source: Zhu et al., "Enhancing Fine-Tuning based Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023.
    """
    accuracy_lost, asr_lost = suspect[0] - cleansed[0], suspect[1] - cleansed[1]
    return (max(0.0, asr_lost) - max(0.0, accuracy_lost) + 100) / 2


class _Percentage(Metric):
    """A share in percent, counted over batches and summed over processes."""

    full_state_update = False
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        self.share: Share | None = None
        """The share that was computed last, over all processes; None if no image counted."""

    def count(self, hits: Tensor, counted: Tensor | None = None) -> None:
        """Count the hits of a batch, (N,) bool, among all images or among the `counted` ones, (N,) bool."""
        # Only sums: indexing with a mask would synchronise with the device.
        self.hits += hits.sum()
        self.total += hits.numel() if counted is None else counted.sum()

    def compute(self) -> Tensor:
        hits, images = int(self.hits), int(self.total)
        self.share = Share(hits, images) if images else None
        return 100 * self.hits / self.total


class Accuracy(_Percentage):
    """The share of `correct` predictions. It takes targets too, so that one MetricCollection can hold all three."""

    def update(self, logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        self.count(correct(logits, labels))


class AttackSuccessRate(_Percentage):
    """The share of `attack_successes` among triggered images of classes other than the target."""

    def update(self, logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        self.count(attack_successes(logits, targets, labels), targets != labels)


class RobustAccuracy(_Percentage):
    """The share of `robust_successes` among triggered images of classes other than the target."""

    def update(self, logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        self.count(robust_successes(logits, targets, labels), targets != labels)


class Agreement(_Percentage):
    """The share of `agreements`."""

    def update(self, logits: Tensor, others: Tensor) -> None:
        self.count(agreements(logits, others))


class Confidence(Metric):
    """For each class, the sum of its probability over the images that are predicted as this class."""

    full_state_update = False
    total: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, logits: Tensor) -> None:
        """Count a batch of logits, (N, C)."""
        probability, label = logits.float().softmax(1).max(1)
        self.total.index_add_(0, label, probability.to(self.total))

    def compute(self) -> Tensor:
        return self.total


class MeanLoss(Metric):
    """The mean loss per image over all batches and processes, accumulated without synchronising with the device."""

    # MeanMetric of torchmetrics checks for NaN in each step, or weighs all batches equally.
    full_state_update = False
    loss: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Add a batch.

        Args:
            loss: Mean loss of the batch.
            images: Number of its images.
        """
        # A module in half precision converts its metrics too, where a sum overflows at 65,504 or stops growing.
        self.loss = self.loss.float() + loss.detach().float() * images
        self.images += images

    def compute(self) -> Tensor:
        return self.loss / self.images
