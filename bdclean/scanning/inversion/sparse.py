"""Trigger inversion with a mask over a few pixels, which squares of one colour may replace."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdclean.perturbations import boxes, few_pixels, overlay, radius
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.search import EVALUATION_IMAGES, Inversion
from bdclean.training import batch_size, pieces

SIDES = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
"""Sides of the squares of one colour that may replace a mask, in pixels, for images of 32 pixels."""
LARGEST_SHIFT = 2
"""Largest distance between the centres of a square and of the mask, in pixels, for images of 32 pixels."""
SHORTLIST_IMAGES = 4
"""Number of images on which all squares are tried."""
SHORTLISTED = 16
"""Number of squares that are tried on all images."""
MIN_ASR = 0.5
"""Smallest share of images that a square has to flip."""
ASR_SLACK = 0.15
"""Largest loss of that share for a square of another colour."""
ASR_PER_PIXEL = 0.01
"""Additional share of images that a square has to flip for each additional pixel of its side."""


class SparseInversion(Inversion):
    """Searches for a mask over few pixels, and their colours, that flips all images to a class.

    The score of a class is the mean share of flipped images over all sizes, for the class from which fewest flip.

    Source: this project, after Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
    Networks", IEEE S&P 2019.

    Args:
        sizes: Largest sums of the mask, from large to small, as the side of a square of that many pixels, for images
            of 32 pixels.
        steps: Number of gradient steps at each size.
        batch_size: Number of images in a step, for each class.
    """

    score_floor = 0.5
    passes = 850

    def __init__(
        self, sizes: Sequence[float] = (11.3, 8.0, 5.6, 4.0, 2.8, 2.0, 1.4), steps: int = 4, batch_size: int = 16
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        # A grey image, blended in by half.
        grey = goal.images.new_tensor([0.5, *[0.25] * goal.images.shape[1]]).view(1, -1, 1, 1)
        return grey.repeat(len(goal), 1, *goal.images.shape[-2:])

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return overlay(images, parameters)

    def project(self, parameters: Tensor, size: float) -> Tensor:
        return few_pixels(parameters, size)

    def simplify(self, goal: Goal, parameters: Tensor) -> Tensor:
        """Squares of one colour around the centre of the mask: the best one, and others of its shape in other colours.

        Gradients find patterns that work as well as a square of the real trigger without resembling it: a student that
        unlearns the patterns may still react to the square. The best square has to flip half of the images, and as many
        as the pattern; the others almost as many as the best.
        """
        if not goal.success_probabilities(overlay, parameters, SHORTLIST_IMAGES).numel():
            return parameters[:0]
        size = goal.images.shape[-2:]
        corners, sides, colours = squares(parameters[0, 0], goal.images.shape[1])

        def layers(chosen: Tensor) -> Tensor:
            return boxes(corners[chosen], sides[chosen], colours[chosen], size)

        def asr(candidates: Tensor) -> Tensor:
            return (goal.success_probabilities(overlay, candidates, EVALUATION_IMAGES) > 0.5).float().mean(1)

        # Prefers the smaller of two squares with the same effect.
        cost = ASR_PER_PIXEL * sides / radius(1, size[-1])
        parts = pieces(
            torch.arange(len(sides), device=sides.device), max(1, batch_size(goal.images) // SHORTLIST_IMAGES)
        )
        first = torch.cat(
            [goal.success_probabilities(overlay, layers(part), SHORTLIST_IMAGES).mean(1) for part in parts]
        )
        first = (first - cost).topk(SHORTLISTED).indices
        shares = torch.cat([asr(layers(one)) for one in first[:, None]])
        best = (shares - cost[first]).argmax()
        if shares[best] < asr(parameters).clamp(min=MIN_ASR):
            return parameters[:0]
        chosen = first[best]
        same_place = (corners == corners[chosen]).all(1) & (sides == sides[chosen])
        same_place[chosen] = False
        others = same_place.nonzero()[:, 0]
        works = torch.cat([asr(layers(one)) for one in others[:, None]]) >= (shares[best] - ASR_SLACK).clamp(
            min=MIN_ASR
        )
        return layers(torch.cat([chosen[None], others[works]]))


def squares(mask: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squares around the centre of a mask (H, W) for `boxes`: corners (P, 2), sides (P,), colours (P, C)."""
    unit = radius(1, mask.shape[-1])
    along = torch.arange(float(mask.shape[-1]), device=mask.device)
    middle = torch.stack([mask.sum(1), mask.sum(0)]) @ along / mask.sum()
    shifts = torch.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1.0, device=mask.device)
    values = torch.tensor([0.0, 1.0], device=mask.device)
    grid = torch.cartesian_prod(shifts, shifts, torch.tensor(SIDES, device=mask.device), *[values] * channels)
    sides = (unit * grid[:, 2]).round()
    corners = (middle + 0.5 - sides[:, None] / 2).round() + (unit * grid[:, :2]).round()
    return corners, sides, grid[:, 3:]
