"""Which images each batch holds, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed
from torch.utils.data import Sampler

from bdclean.errors import InputError


class BatchSampler(Sampler[Tensor]):
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
