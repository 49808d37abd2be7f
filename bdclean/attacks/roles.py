"""Which training images an attack poisons, and which carry its trigger with their true labels."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.errors import Given, InputError

CLEAN, POISONED, COVER = 0, 1, 2
"""What a training image is: as it was; with trigger and target class; with trigger (or noise) and its true class."""


def draw_roles(
    own: Tensor, clean_label: bool, poison_rate: float, cover_ratio: float, seed: int, cover_option: Given
) -> Tensor:
    """Draw what each training image is: CLEAN, POISONED or COVER.

    Args:
        own: (N,) whether each image is of the class that the attacker wants for it.
        clean_label: Whether those are poisoned, or else the others.
        poison_rate: How many: a share of all images, or with `clean_label` of those of their own target class.
        cover_ratio: Cover for each poisoned image, among all that are not poisoned.
        seed: Of the draw.
        cover_option: The parameter that says how much cover there is, for messages.

    Returns:
        (N,) int64.

    Raises:
        InputError: If a rate above 0 poisons no image, or wants more than there are.
    """
    option, total = Given("data.attack.poison_rate", poison_rate), len(own)
    eligible = (own if clean_label else ~own).nonzero().squeeze(1)
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
