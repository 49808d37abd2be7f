"""SCAn: whether two clusters explain the features of a class far better than one, compared with the other classes."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.filtering.clustering import DIMENSIONS, FEWEST, reduced, two_clusters
from bdclean.filtering.pool import PoolScore, groups

RIDGE = 1e-3
"""Share of the mean variance that is added to all variances, so that the covariance has an inverse."""
TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def whitened(features: Tensor, predicted: Tensor) -> Tensor:
    """Features in which the covariance within classes, pooled over all classes, is the unit matrix: (N, D) float64.

    Args:
        features: (N, D).
        predicted: (N,) the class of each image.
    """
    values = features.double()
    centred = values.clone()
    for members in groups(predicted, 1):
        centred[members] -= values[members].mean(0)
    covariance = centred.T @ centred / len(values)
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
    spread, directions = torch.linalg.eigh(covariance + ridge * torch.eye(len(covariance)).double())
    return values @ (directions / spread.sqrt())


def gain(points: Tensor, second: Tensor) -> Tensor:
    """Twice the log-likelihood ratio of two normal clusters and one, all with the unit covariance.

    Args:
        points: (N, D).
        second: (N,) bool, the cluster of each point; both have points.
    """
    parts = (points[second], points[~second])
    return (points - points.mean(0)).square().sum() - sum((part - part.mean(0)).square().sum() for part in parts)


class SCAn(PoolScore):
    """How much better two clusters explain the features of an image's predicted class than one.

    The score of the images in the smaller cluster of a class is the class's likelihood ratio of two normal clusters and
    one, as the distance from the median over all classes, in robust standard deviations; it is 0 in the larger cluster
    and for classes below the median. The covariance within clusters is the same for all classes.

    Source: Tang et al., "Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor Contamination
    Detection", USENIX Security 2021 (arXiv:1908.00686), which flags classes above e^2 = 7.4. The paper estimates the
    covariance from clean images and groups by labels; here both come from the pool and the suspect's predictions.
    """

    def score(self, features: Tensor, predicted: Tensor) -> Tensor:
        points, scores = whitened(features, predicted), torch.zeros(len(features))
        smaller, gains = [], []
        for members in groups(predicted, FEWEST):
            second = two_clusters(reduced(points[members], DIMENSIONS))
            if second.any() and not second.all():
                smaller.append(members[second if 2 * int(second.sum()) <= len(second) else ~second])
                gains.append(gain(points[members], second))
        if gains:
            ratios = torch.stack(gains)
            distances = ratios - ratios.median()
            deviation = TO_SIGMA * distances.abs().median().clamp(min=1e-12)
            for members, distance in zip(smaller, distances, strict=True):
                scores[members] = float((distance / deviation).clamp(min=0))
        return scores
