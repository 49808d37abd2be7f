"""The figures of this field, in percent: pure functions first, then the torchmetrics that accumulate them.

ACC is the share of clean images that get their true class. ASR is the share of triggered images, of classes other than
the target, that get the target class; RA is the share of those that get their true class. Agreement is the share of
images on which two networks have the same top class. None of them has a value where no image counts: they are NaN then.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """ACC in percent.

    Args:
        logits: (N, C) scores, or (N,) classes already chosen.
        labels: (N,) true classes.
    """
    return 100 * (_top(logits) == labels).float().mean()


def attack_success_rate(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """ASR in percent. Images whose target is their true class do not count: they prove nothing.

    Args:
        logits: (N, C) scores of triggered images, or (N,) classes already chosen.
        targets: (N,) classes the attacker wants.
        labels: (N,) true classes.
    """
    counted = targets != labels
    return accuracy(_top(logits)[counted], targets[counted])


def robust_accuracy(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """RA in percent: arguments as for `attack_success_rate`."""
    counted = targets != labels
    return accuracy(_top(logits)[counted], labels[counted])


def defense_effectiveness_rate(suspect: tuple[float, float], cleansed: tuple[float, float]) -> float:
    """DER in percent, from (ACC, ASR) before and after: 100 for a backdoor gone at no cost, 50 for nothing done.

    Source: Zhu et al., "Enhancing Fine-Tuning based Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023.
    """
    accuracy_lost, asr_lost = suspect[0] - cleansed[0], suspect[1] - cleansed[1]
    return (max(0.0, asr_lost) - max(0.0, accuracy_lost) + 100) / 2


def _top(logits: Tensor) -> Tensor:
    return logits.argmax(1) if logits.ndim > 1 else logits


class _Percentage(Metric):
    """A share in percent, counted over batches and summed over processes."""

    full_state_update = False
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def _count(self, hits: Tensor) -> None:
        self.hits += hits.sum()
        self.total += hits.numel()

    def compute(self) -> Tensor:
        return 100 * self.hits / self.total


class Accuracy(_Percentage):
    """Accumulates `accuracy`. It takes targets too, so that all three can stand in one MetricCollection."""

    def update(self, logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        self._count(_top(logits) == labels)


class Agreement(_Percentage):
    """Accumulates the share of images on which two networks' logits have the same top class."""

    def update(self, logits: Tensor, others: Tensor) -> None:
        self._count(_top(logits) == _top(others))


class AttackSuccessRate(_Percentage):
    """Accumulates `attack_success_rate`."""

    def update(self, logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        self._count((_top(logits) == targets)[targets != labels])


class RobustAccuracy(_Percentage):
    """Accumulates `robust_accuracy`."""

    def update(self, logits: Tensor, targets: Tensor, labels: Tensor) -> None:
        self._count((_top(logits) == labels)[targets != labels])
