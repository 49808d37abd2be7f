"""Datasets that are indexed by whole batches."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bdclean.attacks.roles import CLEAN, COVER
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch, Marks
from bdclean.data.images import Images, MemoryImages, to_float
from bdclean.data.placement import Placement
from bdclean.data.sampler import BatchSampler


class Batches(Dataset[Batch]):
    """A dataset of batches of images.

    Args:
        images: The images.
        targets: (N,) as in Batch.
        labels: (N,) as in Batch.
        augment: Crops and flips, applied after the triggers; None for neither.
        stamp: Adds triggers as images are read: from images (n, H, W, C) uint8 and their indices to triggered images.
        roles: (N,) the role of each image, for attacks that poison in the training step; batches then have marks.
        in_workers: Whether worker processes may read the images.
    """

    def __init__(
        self,
        images: Images,
        targets: Tensor | None = None,
        labels: Tensor | None = None,
        augment: Augmentation | None = None,
        stamp: Callable[[Tensor, Tensor], Tensor] | None = None,
        roles: Tensor | None = None,
        in_workers: bool = True,
    ) -> None:
        self.images = images
        self.targets = targets
        self.labels = labels
        self.augment = augment
        self.stamp = stamp
        self.roles = roles
        self.in_workers = in_workers

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Batch:
        pixels = self.images.batch(indices)
        if self.stamp is not None:
            pixels = self.stamp(pixels, indices)
        if self.augment is not None:
            pixels = self.augment(pixels)
        targets, labels = (
            None if column is None else column[indices.to(column.device)] for column in (self.targets, self.labels)
        )
        return Batch(to_float(pixels), targets, labels, None if self.roles is None else self._marks(indices))

    def _marks(self, indices: Tensor) -> Marks:
        # Computed here on the CPU: on a GPU, `nonzero` would make the training step synchronise.
        assert self.roles is not None
        roles = self.roles[indices]
        places = (roles != CLEAN).nonzero().squeeze(1)
        return Marks(places, roles[places] == COVER, indices[places])


def make_loader(batches: Batches, sampler: BatchSampler, placement: Placement) -> DataLoader[Batch]:
    """Make a loader of batches.

    Args:
        batches: The dataset.
        sampler: Yields the indices of each batch.
        placement: Where images are kept, and the number of processes that decode them.
    """
    workers = placement.num_workers if batches.in_workers and not isinstance(batches.images, MemoryImages) else 0
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Pinned, so that the copy to a GPU overlaps with the previous batch.
        pin_memory=workers > 0 and placement.device.type == "cuda",
    )
