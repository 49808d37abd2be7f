"""Choosing the training images that an attack poisons, and the cover images that keep their labels."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.errors import Given, InputError

CLEAN, POISONED, COVER = 0, 1, 2
"""Roles of training images: unchanged; with trigger and target class; with trigger (or noise) and true class."""


def draw_roles(
    eligible: Tensor, coverable: Tensor, count: int, cover_ratio: float, seed: int, cover_option: Given
) -> Tensor:
    """Draw the role of each training image: CLEAN, POISONED or COVER.

    Args:
        eligible: (N,) bool, images that may be poisoned.
        coverable: (N,) bool, images that may be cover, unless they are poisoned.
        count: Number of poisoned images, at most that of the eligible ones.
        cover_ratio: Number of cover images for each poisoned one.
        seed: Seed of the draw.
        cover_option: The parameter that sets the amount of cover, for messages.

    Returns:
        (N,) int64.

    Raises:
        InputError: If a cover ratio above 0 gives no cover image, or needs more images than exist.
    """
    generator = torch.Generator().manual_seed(seed)
    roles = torch.full((len(eligible),), CLEAN)
    own = eligible.nonzero().squeeze(1)
    roles[own[torch.randperm(len(own), generator=generator)[:count]]] = POISONED
    others = ((roles == CLEAN) & coverable).nonzero().squeeze(1)
    covers = round(cover_ratio * count)
    if covers > len(others) or (covers == 0) != (cover_ratio * count == 0):
        raise InputError(*cover_option, f"needs {covers} cover images, but only {len(others)} images are not poisoned")
    roles[others[torch.randperm(len(others), generator=generator)[:covers]]] = COVER
    return roles
