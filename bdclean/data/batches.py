"""Whole batches: which images each holds, their triggers, their augmentation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.utils.data import Dataset, DistributedSampler

from bdclean import InputError
from bdclean.attacks import Attack
from bdclean.attacks.roles import CLEAN, COVER
from bdclean.data.images import Images, across

AT_ONCE = 1_024_000
"""Pixels that triggers are put on at once: their maps shall not fill the memory."""


def to_float(pixels: Tensor) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float in [0, 1], in channels-last layout; floats stay what they are."""
    images = pixels.permute(0, 3, 1, 2)
    return images if images.is_floating_point() else images / 255


def to_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) float in [0, 1] to (N, H, W, C) uint8: an attacker hands over image files."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def trigger(pixels: Tensor, attack: Attack) -> Tensor:
    """Put an attack's trigger on test images: (N, H, W, C) uint8, on any device."""
    attack = _beside(attack, pixels)
    return torch.cat([to_pixels(attack.apply(to_float(piece))) for piece in torch.split(pixels, _piece(pixels))])


@torch.no_grad()
def poison(pixels: Tensor, attack: Attack, roles: Tensor, indices: Tensor) -> Tensor:
    """Poison training images.

    Args:
        pixels: (N, H, W, C) uint8, on any device.
        attack: What puts the triggers on them.
        roles: (N,) what each of them is, as `Attack.choose` gives it.
        indices: (N,) their numbers in the training set.

    Returns:
        A new tensor, in which those that are CLEAN are as they were.
    """
    attack = _beside(attack, pixels)
    poisoned = pixels.clone()
    for places in torch.split((roles != CLEAN).nonzero().squeeze(1), _piece(pixels)):
        here = places.to(pixels.device)
        cover = (roles[places] == COVER).to(pixels.device)
        poisoned[here] = to_pixels(attack.poison(to_float(pixels[here]), cover, indices[places].to(pixels.device)))
    return poisoned


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


def _piece(pixels: Tensor) -> int:
    """How many images are worked on at once: 1,000 of 32 pixels."""
    return max(1, AT_ONCE // (pixels.shape[1] * pixels.shape[2]))


def _beside(attack: Attack, pixels: Tensor) -> Attack:
    """The attack where the images are: a copy, as the attack itself may be needed where it is."""
    tensors = [*attack.parameters(), *attack.buffers()]
    return attack if all(x.device == pixels.device for x in tensors) else copy.deepcopy(attack).to(pixels.device)


def random_crop_flip(pixels: Tensor, padding: int, flip: bool) -> Tensor:
    """Random crop after zero padding, and random horizontal flip, of a whole batch at once.

    Args:
        pixels: (N, H, W, C), any type, on any device.
        padding: Pixels added on each side before an image of the old size is cut out.
        flip: Whether each image is mirrored with probability 1/2.
    """
    count, height, width, channels = pixels.shape
    device, free = pixels.device, 2 * padding
    rows = torch.arange(height, device=device) + torch.randint(free + 1, (count, 1), device=device)
    columns = torch.randint(free + 1, (count, 1), device=device)
    images = torch.arange(count, device=device)[:, None]
    padded = F.pad(pixels, (0, 0, padding, padding, padding, padding))
    if flip:
        mirrored = torch.rand(count, 1, device=device) < 0.5
        padded = torch.cat([padded, padded.flip(2)])
        images, columns = images + count * mirrored, torch.where(mirrored, free - columns, columns)
    # Rows of the result lie in one piece there, one beginning at each pixel: much faster than pixel by pixel.
    _, high, wide, _ = padded.shape
    begins = (images * high + rows) * wide + columns
    if pixels.requires_grad:
        # The gradient of pieces that overlap would be that of each of them: many times as much as the images.
        places = begins[..., None] + torch.arange(width, device=device)
        return padded.reshape(-1, channels).index_select(0, places.flatten()).view(pixels.shape)
    pieces = padded.contiguous().as_strided((len(padded) * high * wide - width + 1, width * channels), (channels, 1))
    return pieces.index_select(0, begins.flatten()).view(pixels.shape)


class BatchSampler(DistributedSampler[Tensor]):
    """Cuts a set into batches of almost equal size, and each batch into the shares of the processes.

    Every image is seen exactly once an epoch, whatever the number of processes; with the same seed the batches, taken
    over all processes, are the same. The processes are counted when the iteration starts, so a loader may be made
    before they are.

    Args:
        length: How many images.
        batch_size: Largest batch over all processes; the sizes of the batches differ by one at most.
        shuffle: Whether each epoch has an order of its own.
        seed: Fixes the orders.
        shared: Whether each process gets its share; else each gets whole batches.
    """

    # A DistributedSampler, so that Lightning puts none of its own in its place: that one repeats images.
    def __init__(self, length: int, batch_size: int, shuffle: bool, seed: int = 0, shared: bool = True) -> None:
        super().__init__(cast(Dataset[Any], range(length)), num_replicas=1, rank=0, shuffle=shuffle, seed=seed)
        self.length = length
        self.batches = max(1, -(-length // batch_size))
        self.shared = shared

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)
        several = self.shared and distributed.is_available() and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)
        if self.shuffle and self.length // self.batches < world:
            raise InputError(
                f"--data.batch_size: batches of {self.length // self.batches} images for {world} processes"
            )
        for batch in order.tensor_split(self.batches):
            yield batch.tensor_split(world)[rank]


class Batches(Dataset[Tensor | tuple[Tensor, ...]]):
    """Images by the batch, as float (N, 3, H, W) in [0, 1].

    Args:
        images: The images.
        columns: What goes with each image, as tensors of N rows. Without any, a batch is a bare tensor of images.
        augment: Padding of the random crop and whether to flip, or None for the images as they are.
        stamp: Puts triggers on images as they are read: from (n, H, W, C) uint8 and their numbers to the same.
        roles: (N,) what each image is, for attacks that act in the training step. A batch ends then with the places in
            it of the images that are not CLEAN, with which of these are COVER, and with their numbers.
    """

    def __init__(
        self,
        images: Images,
        columns: tuple[Tensor, ...] = (),
        augment: tuple[int, bool] | None = None,
        stamp: Callable[[Tensor, Tensor], Tensor] | None = None,
        roles: Tensor | None = None,
    ) -> None:
        self.images = images
        self.columns = columns
        self.augment = augment
        self.stamp = stamp
        self.roles = roles

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Tensor | tuple[Tensor, ...]:
        pixels = self.images.batch(indices)
        if self.stamp is not None:
            pixels = self.stamp(pixels, indices)
        if self.augment is not None:
            pixels = random_crop_flip(pixels, *self.augment)
        images = to_float(pixels)
        if not self.columns:
            return images
        columns = [column[indices.to(column.device)] for column in self.columns]
        if self.roles is not None:
            # Found here, on the CPU: on a device the training step would have to wait for their number.
            roles = self.roles[indices]
            places = (roles != CLEAN).nonzero().squeeze(1)
            columns += [places, roles[places] == COVER, indices[places]]
        return images, *columns
