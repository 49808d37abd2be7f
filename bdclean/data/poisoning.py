"""How triggers get onto images."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from bdclean.attacks import Attack
from bdclean.attacks.roles import CLEAN, COVER
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch
from bdclean.data.images import Images, across, to_float, to_pixels

AT_ONCE = 1_024_000
"""Pixels that triggers are put on at once: their maps shall not fill the memory."""


@torch.no_grad()
def stamp(pixels: Tensor, places: Tensor, put: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Put triggers on images that an attacker hands over as files: what comes out has whole grey levels.

    Args:
        pixels: (N, H, W, C) uint8, on any device.
        places: (M,) which images get one.
        put: From images (n, C, H, W) float in [0, 1] and their places to such images.

    Returns:
        A new tensor, in which the others are as they were.
    """
    stamped = pixels.clone()
    size = max(1, AT_ONCE // (pixels.shape[1] * pixels.shape[2]))
    for some in torch.split(places, size):
        here = some.to(pixels.device)
        stamped[here] = to_pixels(put(to_float(pixels[here]), some))
    return stamped


def trigger(pixels: Tensor, attack: Attack) -> Tensor:
    """Put an attack's trigger on test images: as `stamp`."""
    attack = _beside(attack, pixels)
    return stamp(pixels, torch.arange(len(pixels)), lambda images, _: attack.apply(images))


def poison(pixels: Tensor, attack: Attack, roles: Tensor, indices: Tensor) -> Tensor:
    """Poison training images, once and for all: as `stamp`.

    Args:
        pixels: (N, H, W, C) uint8, on any device.
        attack: What puts the triggers on them.
        roles: (N,) what each of them is, as `Attack.choose` gives it.
        indices: (N,) their numbers in the training set.
    """
    attack = _beside(attack, pixels)

    def put(images: Tensor, some: Tensor) -> Tensor:
        cover = (roles[some] == COVER).to(images.device)
        return attack.poison(images, cover, indices[some].to(images.device))

    return stamp(pixels, (roles != CLEAN).nonzero().squeeze(1), put)


def poison_in_step(batch: Batch, attack: Attack, augment: Augmentation) -> Tensor:
    """The images of a batch with triggers on those that are marked, cropped and flipped after that.

    Triggers come first: else a network would know them by what they do to the padding.

    Args:
        batch: With marks.
        attack: What acts in the training step; where it learns the images carry its gradient.
        augment: Crops and flips.

    Returns:
        (N, C, H, W) float in [0, 1].
    """
    assert batch.marks is not None
    places, cover, indices = batch.marks

    def augmented(images: Tensor) -> Tensor:
        return augment(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    if not len(places):
        return augmented(batch.images)
    # These alone have gradients to be carried back through the crops.
    triggered = augmented(attack.poison(batch.images[places], cover, indices).to(batch.images))
    return augmented(batch.images).index_copy(0, places, triggered)


class Poisoned:
    """Gives images that are poisoned always in the same way, and were once and for all, in the place of clean ones.

    Args:
        images: The images, clean.
        attack: As in `poison`.
        roles: As in `poison`.
    """

    def __init__(self, images: Images, attack: Attack, roles: Tensor) -> None:
        chosen = (roles != CLEAN).nonzero().squeeze(1)
        self.pixels = poison(images.batch(chosen), attack, roles[chosen], chosen)
        self.rows = torch.full_like(roles, -1, dtype=torch.long)
        self.rows[chosen] = torch.arange(len(chosen))

    def __call__(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Images (n, H, W, C), which are changed, by their numbers."""
        rows = self.rows[indices]
        places = (rows >= 0).nonzero().squeeze(1)
        pixels[across(places, pixels.device)] = self.pixels[across(rows[places], pixels.device)]
        return pixels


def _beside(attack: Attack, pixels: Tensor) -> Attack:
    """The attack where the images are: a copy, as the attack itself may be needed where it is."""
    tensors = [*attack.parameters(), *attack.buffers()]
    return attack if all(x.device == pixels.device for x in tensors) else copy.deepcopy(attack).to(pixels.device)
