"""Put triggers on images."""

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
"""Number of pixels to put triggers on at once, which limits the memory for intermediate maps."""


@torch.no_grad()
def stamp(pixels: Tensor, places: Tensor, put: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Put triggers on some images, and round them to uint8 as in image files.

    Args:
        pixels: (N, H, W, C) uint8, on any device.
        places: (M,) indices of the images that get a trigger.
        put: From images (n, C, H, W) float in [0, 1] and their indices to triggered images.

    Returns:
        A new tensor, in which all other images are unchanged.
    """
    stamped = pixels.clone()
    size = max(1, AT_ONCE // (pixels.shape[1] * pixels.shape[2]))
    for some in torch.split(places, size):
        indices = some.to(pixels.device)
        stamped[indices] = to_pixels(put(to_float(pixels[indices]), some))
    return stamped


def trigger(pixels: Tensor, attack: Attack) -> Tensor:
    """Put an attack's trigger on all test images, (N, H, W, C) uint8: see `stamp`."""
    attack = _on_device_of(pixels, attack)
    return stamp(pixels, torch.arange(len(pixels)), lambda images, _: attack.apply(images))


def poison(pixels: Tensor, attack: Attack, roles: Tensor, indices: Tensor) -> Tensor:
    """Poison training images before training: see `stamp`.

    Args:
        pixels: (N, H, W, C) uint8, on any device.
        attack: The attack.
        roles: (N,) the role of each image, from `Attack.choose`.
        indices: (N,) indices in the training set.
    """
    attack = _on_device_of(pixels, attack)

    def put(images: Tensor, some: Tensor) -> Tensor:
        cover = (roles[some] == COVER).to(images.device)
        return attack.poison(images, cover, indices[some].to(images.device))

    return stamp(pixels, (roles != CLEAN).nonzero().squeeze(1), put)


def poison_in_step(batch: Batch, attack: Attack, augment: Augmentation) -> Tensor:
    """Put triggers on the marked images of a batch, then crop and flip all images.

    Triggers come first: otherwise a network could recognise them by their effect on the padding.

    Args:
        batch: A batch with marks.
        attack: The attack; if its trigger is learned, the images have a gradient with respect to it.
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
    # Augment triggered images separately, so that only they are back-propagated through.
    triggered = augmented(attack.poison(batch.images[places], cover, indices).to(batch.images))
    return augmented(batch.images).index_copy(0, places, triggered)


class Poisoned:
    """Replaces clean images by images that were poisoned in advance, for attacks that do not poison in each step.

    Args:
        images: The clean images.
        attack: The attack.
        roles: (N,) the role of each image, from `Attack.choose`.
    """

    def __init__(self, images: Images, attack: Attack, roles: Tensor) -> None:
        chosen = (roles != CLEAN).nonzero().squeeze(1)
        self.pixels = poison(images.batch(chosen), attack, roles[chosen], chosen)
        self.rows = torch.full_like(roles, -1, dtype=torch.long)
        self.rows[chosen] = torch.arange(len(chosen))

    def __call__(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Replace the poisoned ones of images (n, H, W, C) with these indices, in place."""
        rows = self.rows[indices]
        places = (rows >= 0).nonzero().squeeze(1)
        pixels[across(places, pixels.device)] = self.pixels[across(rows[places], pixels.device)]
        return pixels


def _on_device_of(pixels: Tensor, attack: Attack) -> Attack:
    """The attack on the device of the images; a copy if it is on another, where it may still be needed."""
    tensors = [*attack.parameters(), *attack.buffers()]
    return attack if all(x.device == pixels.device for x in tensors) else copy.deepcopy(attack).to(pixels.device)
