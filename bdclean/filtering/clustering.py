"""Activation clustering: whether features belong to the smaller of two clusters of their class."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.filtering.pool import PoolScore, groups

DIMENSIONS = 10
"""Number of principal components in which features are clustered."""
FEWEST = 4
"""Fewest images of a class that is clustered; images of smaller classes have the score 0."""
ITERATIONS = 50
"""Largest number of iterations of k-means."""


def reduced(features: Tensor, dimensions: int) -> Tensor:
    """Principal components of features, by decreasing variance: (N, D) to (N, at most `dimensions`)."""
    centred = features.double() - features.double().mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:dimensions]
    return centred @ directions.T


def two_clusters(points: Tensor) -> Tensor:
    """Two clusters by k-means, (N,) bool, which starts from the sign of the first component: deterministic.

    Args:
        points: (N, D), principal components in their order.
    """
    second = points[:, 0] > 0
    for _ in range(ITERATIONS):
        if second.all() or not second.any():
            break
        nearer = torch.cdist(points, torch.stack([points[~second].mean(0), points[second].mean(0)])).argmin(1) == 1
        if torch.equal(nearer, second):
            break
        second = nearer
    return second


def silhouettes(points: Tensor, second: Tensor) -> Tensor:
    """How clearly each point belongs to its cluster, from -1 to 1, by its distances to the two centres.

    This is Rousseeuw's silhouette with distances to the centres instead of mean distances to all points.

    Args:
        points: (N, D).
        second: (N,) bool, the cluster of each point; both have points.
    """
    distances = torch.cdist(points, torch.stack([points[~second].mean(0), points[second].mean(0)]))
    own, other = distances.gather(1, second.long()[:, None])[:, 0], distances.gather(1, (~second).long()[:, None])[:, 0]
    return (other - own) / torch.maximum(own, other).clamp(min=1e-12)


class ActivationClustering(PoolScore):
    """How clearly an image's features belong to the smaller of two clusters of its predicted class.

    Within each class that the suspect predicts, the penultimate features, reduced to 10 components, are divided into
    two clusters. The score is the silhouette of the image, negative in the larger cluster, times the mean silhouette of
    the class: high in small clusters that are clearly separate.

    Source: Chen et al., "Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering", SafeAI 2019
    (arXiv:1811.03728). The paper groups by labels, reduces by independent components, and decides for whole clusters;
    here predictions replace the labels, and principal components the independent ones.
    """

    def score(self, features: Tensor, predicted: Tensor) -> Tensor:
        scores = torch.zeros(len(features))
        for members in groups(predicted, FEWEST):
            points = reduced(features[members], DIMENSIONS)
            second = two_clusters(points)
            if second.all() or not second.any():
                continue
            clear = silhouettes(points, second)
            smaller = second if 2 * int(second.sum()) <= len(second) else ~second
            scores[members] = (clear.mean() * torch.where(smaller, clear, -clear)).float()
        return scores
