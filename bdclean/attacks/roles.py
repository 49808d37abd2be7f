"""Choosing the training images that an attack poisons, and the cover images that keep their labels."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.errors import Given, InputError

CLEAN, POISONED, COVER = 0, 1, 2
"""Roles of training images: unchanged; with trigger and target class; with trigger (or noise) and true class."""


def draw_roles(
    is_target: Tensor, clean_label: bool, poison_rate: float, cover_ratio: float, seed: int, cover_option: Given
) -> Tensor:
    """Draw the role of each training image: CLEAN, POISONED or COVER.

    Args:
        is_target: (N,) whether the class of each image is its target class.
        clean_label: Whether images of the target class are poisoned, instead of the others.
        poison_rate: Share of all images that are poisoned, or with `clean_label` of the images of the target class.
        cover_ratio: Number of cover images for each poisoned image, drawn from all images that are not poisoned.
        seed: Seed of the draw.
        cover_option: The parameter that sets the amount of cover, for messages.

    Returns:
        (N,) int64.

    Raises:
        InputError: If a rate above 0 poisons no image, or needs more images than exist.
    """
    option, total = Given("data.attack.poison_rate", poison_rate), len(is_target)
    eligible = (is_target if clean_label else ~is_target).nonzero().squeeze(1)
    count = round(poison_rate * (len(eligible) if clean_label else total))
    if poison_rate > 0 and count == 0:
        raise InputError(*option, f"poisons none of {total} images")
    if count > len(eligible):
        raise InputError(
            *option, f"wants {count} images of other classes than the target, but there are {len(eligible)}"
        )
    generator = torch.Generator().manual_seed(seed)
    roles = torch.full((total,), CLEAN)
    roles[eligible[torch.randperm(len(eligible), generator=generator)[:count]]] = POISONED
    others = (roles == CLEAN).nonzero().squeeze(1)
    covers = round(cover_ratio * count)
    if covers > len(others) or (covers == 0) != (cover_ratio * count == 0):
        raise InputError(*cover_option, f"wants {covers} images as cover, of {len(others)} that are not poisoned")
    roles[others[torch.randperm(len(others), generator=generator)[:covers]]] = COVER
    return roles
