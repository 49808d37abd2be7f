"""Trigger inversion with a mask over a few pixels, and squares of one colour in its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdclean.perturbations import boxes, few_pixels, overlay, radius
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.search import JUDGED, Inversion
from bdclean.training import batch_size, pieces

SIDES = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
"""Sides of the squares of one colour that are tried in the place of a mask, in pixels of 32."""
AROUND = 2
"""Places to each side of the mask where a square is tried."""
GLANCED = 4
"""Images by which all squares are tried."""
LIKELY = 16
"""Squares that are tried by all images."""
WORKS = 0.5
"""Share of the images that a square flips to count as a trigger."""
ALIKE = 0.15
"""Share of the images that a square of another colour may flip less than the best."""
LARGER = 0.01
"""Share of the images that a pixel more of its side has to flip."""


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

    least = 0.5

    def __init__(
        self, sizes: Sequence[float] = (11.3, 8.0, 5.6, 4.0, 2.8, 2.0, 1.4), steps: int = 4, batch_size: int = 16
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        # Half of a grey picture over all of the image.
        grey = goal.images.new_tensor([0.5, *[0.25] * goal.images.shape[1]]).view(1, -1, 1, 1)
        return grey.repeat(len(goal), 1, *goal.images.shape[-2:])

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return overlay(images, parameters)

    def project(self, parameters: Tensor, size: float) -> Tensor:
        return few_pixels(parameters, size)

    def simplify(self, goal: Goal, parameters: Tensor) -> Tensor:
        """Squares of one colour about where the mask is: the best, and in its place those of other colours.

        Gradients end in patterns that work as well as such a square, and are none: a student that unlearns them may
        keep that. The best flips half of the images, and as many as the pattern, or there is none; others work almost
        as well.
        """
        if not goal.likely(overlay, parameters, GLANCED).numel():
            return parameters[:0]
        size = goal.images.shape[-2:]
        corners, sides, colours = squares(parameters[0, 0], goal.images.shape[1])

        def layers(chosen: Tensor) -> Tensor:
            return boxes(corners[chosen], sides[chosen], colours[chosen], size)

        def taken(tried: Tensor) -> Tensor:
            return (goal.likely(overlay, tried, JUDGED) > 0.5).float().mean(1)

        # Of two that do as much, the smaller one.
        cost = LARGER * sides / radius(1, size[-1])
        parts = pieces(torch.arange(len(sides), device=sides.device), max(1, batch_size(goal.images) // GLANCED))
        first = torch.cat([goal.likely(overlay, layers(part), GLANCED).mean(1) for part in parts])
        first = (first - cost).topk(LIKELY).indices
        shares = torch.cat([taken(layers(one)) for one in first[:, None]])
        best = (shares - cost[first]).argmax()
        if shares[best] < taken(parameters).clamp(min=WORKS):
            return parameters[:0]
        chosen = first[best]
        place = (corners == corners[chosen]).all(1) & (sides == sides[chosen])
        place[chosen] = False
        others = place.nonzero()[:, 0]
        work = torch.cat([taken(layers(one)) for one in others[:, None]]) >= (shares[best] - ALIKE).clamp(min=WORKS)
        return layers(torch.cat([chosen[None], others[work]]))


def squares(mask: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squares about the middle of a mask (H, W), as `boxes` takes them: corners (P, 2), sides (P,), colours (P, C)."""
    unit = radius(1, mask.shape[-1])
    along = torch.arange(float(mask.shape[-1]), device=mask.device)
    middle = torch.stack([mask.sum(1), mask.sum(0)]) @ along / mask.sum()
    shifts = torch.arange(-AROUND, AROUND + 1.0, device=mask.device)
    either = torch.tensor([0.0, 1.0], device=mask.device)
    every = torch.cartesian_prod(shifts, shifts, torch.tensor(SIDES, device=mask.device), *[either] * channels)
    sides = (unit * every[:, 2]).round()
    corners = (middle + 0.5 - sides[:, None] / 2).round() + (unit * every[:, :2]).round()
    return corners, sides, every[:, 3:]
