"""Sample batches of indices, for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed
from torch.utils.data import Sampler

from bdclean.errors import InputError


class BatchSampler(Sampler[Tensor]):
    """Divides a set into batches of almost equal size, and each batch among the processes.

    Every image is used exactly once per epoch, and the batches over all processes depend only on the seed, not on the
    number of processes. This number is read when iteration starts, so that a loader can be made before the processes.

    Args:
        length: Number of images.
        batch_size: Maximum batch size over all processes; batch sizes differ by at most one.
        shuffle: Whether each epoch has another random order.
        seed: Seed of the orders.
        shared: Whether each process gets a share of each batch; otherwise it gets whole batches.
    """

    def __init__(self, length: int, batch_size: int, shuffle: bool, seed: int = 0, shared: bool = True) -> None:
        self.length = length
        self.batches = max(1, -(-length // batch_size))
        self.shuffle = shuffle
        self.seed = seed
        self.shared = shared
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)
        several = self.shared and distributed.is_available() and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)
        if self.shuffle and self.length // self.batches < world:
            raise InputError(
                "data.batch_size", None, f"batches of {self.length // self.batches} images for {world} processes"
            )
        for batch in order.tensor_split(self.batches):
            yield batch.tensor_split(world)[rank]
