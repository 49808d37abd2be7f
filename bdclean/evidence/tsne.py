"""t-SNE: points in a plane whose neighbours are the neighbours in a space of many dimensions.

Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bdclean.filtering.clustering import reduced

DIMENSIONS = 30
"""Number of principal components that neighbours are found in."""
PERPLEXITY = 20.0
"""Effective number of neighbours of a point."""
EXAGGERATED, ITERATIONS = 80, 300
"""Number of iterations with exaggerated attraction, and of all iterations."""
EXAGGERATION = 12.0
"""Factor of the attraction in the first iterations."""


def tsne(features: Tensor) -> Tensor:
    """Embed features in a plane, deterministically: the start is the first two principal components.

    The time and memory are quadratic in N: a second for a few hundred points.

    Args:
        features: (N, D), at least three different points.

    Returns:
        (N, 2).
    """
    points = reduced(features, DIMENSIONS)
    attraction = neighbourhoods(torch.cdist(points, points).square())
    y = 1e-4 * points[:, :2] / points[:, 0].std().clamp(min=1e-12)
    y = torch.nn.functional.pad(y, (0, 2 - y.shape[1]))
    velocity, gain = torch.zeros_like(y), torch.ones_like(y)
    rate = max(len(y) / EXAGGERATION / 4, 50.0)
    for iteration in range(ITERATIONS):
        similar = 1 / (1 + torch.cdist(y, y).square())
        similar.fill_diagonal_(0)
        factor = EXAGGERATION if iteration < EXAGGERATED else 1.0
        forces = (factor * attraction - similar / similar.sum()) * similar
        gradient = 4 * (forces.sum(1, keepdim=True) * y - forces @ y)
        gain = torch.where(gradient.sign() == velocity.sign(), gain * 0.8, gain + 0.2).clamp(min=0.01)
        velocity = (0.5 if iteration < EXAGGERATED else 0.8) * velocity - rate * gain * gradient
        y = y + velocity
    return (y - y.mean(0)).float()


def neighbourhoods(squared: Tensor) -> Tensor:
    """Symmetric probabilities of neighbours, (N, N): Gaussians whose widths give each point the same perplexity.

    Args:
        squared: (N, N) squared distances.
    """
    number = len(squared)
    wanted = math.log(min(PERPLEXITY, (number - 1) / 3))
    low, high = torch.full((number, 1), -60.0).double(), torch.full((number, 1), 60.0).double()
    scaled = squared / squared.mean().clamp(min=1e-12)
    scaled = scaled.clone().fill_diagonal_(torch.inf)
    p = torch.zeros_like(squared)
    # Bisection of the logarithm of the precision.
    for _ in range(50):
        middle = (low + high) / 2
        p = (-scaled * middle.exp()).softmax(1)
        wide = -(p * p.clamp(min=1e-300).log()).sum(1, keepdim=True) > wanted
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    return (p + p.T) / (2 * number)
