"""Which images to flag, and how well scores separate images whose triggers are known: pure functions of scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOW_FPR = 0.01
"""False positive rate at which the true positive rate is reported."""
ROUNDING = 1e-9
"""Tolerance for products such as 0.01 * 100, so that they count as whole numbers."""


def p_values(scores: Tensor, clean: Tensor) -> Tensor:
    """The p-value of each score among the scores of images that are known to be clean.

    p = (1 + number of clean scores that are at least as high) / (1 + number of clean scores). If an image is clean and
    drawn like the known ones, the probability of p <= alpha is at most alpha.

    Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005 (conformal p-values).

    Args:
        scores: (N,).
        clean: (M,) scores of the clean images.

    Returns:
        (N,) float32 in (0, 1].
    """
    below = torch.searchsorted(clean.sort().values, scores)
    return (1 + len(clean) - below).float() / (1 + len(clean))


def threshold(clean: Tensor, alpha: float) -> float:
    """The threshold above which exactly those scores lie whose p-value is at most `alpha`.

    Args:
        clean: (M,) scores of the clean images.
        alpha: The share of false alarms, from 1 / (M + 1) to 1.
    """
    exceeding = min(len(clean), math.floor(alpha * (len(clean) + 1) + ROUNDING) - 1)
    return -math.inf if exceeding == len(clean) else float(clean.sort(descending=True).values[exceeding])


def highest(scores: Tensor, share: float) -> Tensor:
    """Which images have the highest scores, (N,) bool: a share of them, rounded, at least one."""
    flags = torch.zeros(len(scores), dtype=torch.bool)
    flags[scores.argsort(descending=True, stable=True)[: max(1, round(share * len(scores)))]] = True
    return flags


def auroc(scores: Tensor, triggered: Tensor) -> float | None:
    """The area under the ROC curve: the probability that a triggered image has a higher score than a clean one.

    Equal scores count half. The area is the statistic of Mann and Whitney's test over the number of pairs.

    Args:
        scores: (N,).
        triggered: (N,) bool.

    Returns:
        A share in [0, 1]; None without clean or without triggered images.
    """
    high, low = scores[triggered].contiguous(), scores[~triggered].sort().values
    if not len(high) or not len(low):
        return None
    below, not_above = (torch.searchsorted(low, high, right=right) for right in (False, True))
    return float((below + not_above).double().sum() / (2 * len(high) * len(low)))


def true_positive_rate(scores: Tensor, triggered: Tensor, false_positive_rate: float = LOW_FPR) -> float | None:
    """The largest share of triggered images above a threshold that at most a share of clean images exceeds.

    Args:
        scores: (N,).
        triggered: (N,) bool.
        false_positive_rate: The largest share of clean images with a score above the threshold.

    Returns:
        A share in [0, 1]; None without clean or without triggered images.
    """
    high, low = scores[triggered], scores[~triggered].sort(descending=True).values
    if not len(high) or not len(low):
        return None
    allowed = int(false_positive_rate * len(low) + ROUNDING)
    return 1.0 if allowed == len(low) else float((high > low[allowed]).double().mean())
