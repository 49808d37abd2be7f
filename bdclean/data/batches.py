"""Whole batches: which images each holds, their triggers, their augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.utils.data import Dataset, DistributedSampler

from bdclean import InputError
from bdclean.attacks import Attack
from bdclean.data.images import Images, MemoryImages


def to_float(pixels: Tensor) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float in [0, 1], in channels-last layout; floats stay what they are."""
    images = pixels.permute(0, 3, 1, 2)
    return images if images.is_floating_point() else images.float().div_(255)


def stamp(pixels: Tensor, attack: Attack) -> Tensor:
    """Trigger (N, H, W, C) uint8 images. The result is rounded to uint8: an attacker hands over image files."""
    triggered = attack.apply(to_float(pixels))
    return triggered.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


def stamp_in_memory(images: MemoryImages, attack: Attack, chosen: Tensor) -> MemoryImages:
    """The same images, of which the chosen ones ((N,) bool) carry the trigger."""
    pixels = images.pixels.clone()
    for indices in torch.split(chosen.nonzero().squeeze(1), 4096):
        pixels[indices] = stamp(pixels[indices], attack)
    return MemoryImages(pixels, images.labels)


def random_crop_flip(pixels: Tensor, padding: int, flip: bool) -> Tensor:
    """Random crop after zero padding, and random horizontal flip, of a whole batch in one gather.

    Args:
        pixels: (N, H, W, C), any type, on any device.
        padding: Pixels added on each side before an image of the old size is cut out.
        flip: Whether each image is mirrored with probability 1/2.
    """
    count, height, width, _ = pixels.shape
    device = pixels.device
    rows = torch.arange(height, device=device) + torch.randint(2 * padding + 1, (count, 1), device=device)
    columns = torch.arange(width, device=device) + torch.randint(2 * padding + 1, (count, 1), device=device)
    if flip:
        columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    padded = F.pad(pixels, (0, 0, padding, padding, padding, padding))
    return padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


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
    """

    # A DistributedSampler, so that Lightning puts none of its own in its place: that one repeats images.
    def __init__(self, length: int, batch_size: int, shuffle: bool, seed: int = 0) -> None:
        super().__init__(cast(Dataset[Any], range(length)), num_replicas=1, rank=0, shuffle=shuffle, seed=seed)
        self.length = length
        self.batches = max(1, -(-length // batch_size))

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)
        several = distributed.is_available() and distributed.is_initialized()
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
        attack: Puts its trigger on the chosen images as they are read (images in memory are stamped before).
        chosen: (N,) bool.
    """

    def __init__(
        self,
        images: Images,
        columns: tuple[Tensor, ...] = (),
        augment: tuple[int, bool] | None = None,
        attack: Attack | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        self.images = images
        self.columns = columns
        self.augment = augment
        self.attack = attack
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Tensor | tuple[Tensor, ...]:
        pixels = self.images.batch(indices)
        if self.attack is not None and self.chosen is not None and (chosen := self.chosen[indices]).any():
            pixels[chosen] = stamp(pixels[chosen], self.attack)
        if self.augment is not None:
            pixels = random_crop_flip(pixels, *self.augment)
        images = to_float(pixels)
        if not self.columns:
            return images
        return images, *(column[indices.to(column.device)] for column in self.columns)
