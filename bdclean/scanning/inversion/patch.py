"""Trigger inversion with a patch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from bdclean.perturbations import ascend, lay, overlay, paste, radius
from bdclean.scanning.goals import Goal
from bdclean.scanning.inversion.sparse import SparseInversion

PATCH_SIDE = 7.0
"""Side of the first patch, in pixels, for images of 32 pixels."""
PATCH_STEPS = 12
"""Gradient steps for the first patch."""
POSITIONS = 5
"""Positions of the patch that are tried along each side of the image."""


class PatchInversion(SparseInversion):
    """Searches for a patch that flips all images to a class, first at random positions, then with fewer pixels.

    The patch is optimised at a random position of each image, so that its content is found before its position; then
    it is put where it flips most images, and its mask shrinks.

    Source: this project; patches at random positions: Brown, Mané, Roy, Abadi, Gilmer, "Adversarial Patch", 2017.

    Args:
        sizes: Largest sums of the mask, from large to small, as the side of a square of that many pixels, for images
            of 32 pixels.
        steps: Number of gradient steps at each size.
        batch_size: Number of images in a step, for each class.
    """

    score_floor = 0.45
    passes = 1500

    def __init__(self, sizes: Sequence[float] = (5.6, 4.0, 2.8, 2.0), steps: int = 4, batch_size: int = 16) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        side, channels = goal.images.shape[-1], goal.images.shape[1]
        pixels = min(side, max(1, round(radius(PATCH_SIDE, side))))
        grey = goal.images.new_full((len(goal), channels, pixels, pixels), 0.5)
        gain = partial(goal.gain, paste)
        patches = ascend(gain, grey, pixels, PATCH_STEPS, lambda colours, _: colours.clamp(0, 1))
        places = torch.linspace(0, side - pixels, POSITIONS, device=goal.images.device).round().long()

        def layers(corners: Tensor) -> Tensor:
            return lay(patches, corners.expand(len(goal), 2), goal.images.shape[-2:])

        corners = torch.cartesian_prod(places, places)
        with torch.no_grad():
            best = torch.stack([goal.quick_gain(overlay, layers(corner)) for corner in corners]).argmax(0)
        return layers(corners[best])
