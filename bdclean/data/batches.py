"""Sets of images, read by the batch."""

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
    """Images by the batch.

    Args:
        images: The images.
        targets: (N,) as in Batch.
        labels: (N,) as in Batch.
        augment: Crops and flips images once they carry their triggers; None for the images as they are.
        stamp: Puts triggers on images as they are read: from (n, H, W, C) uint8 and their numbers to the same.
        roles: (N,) what each image is, for attacks that act in the training step: batches have marks then.
        in_workers: Whether worker processes may read them.
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
        # Found here, on the CPU: on a device the training step would have to wait for their number.
        assert self.roles is not None
        roles = self.roles[indices]
        places = (roles != CLEAN).nonzero().squeeze(1)
        return Marks(places, roles[places] == COVER, indices[places])


def make_loader(batches: Batches, sampler: BatchSampler, placement: Placement) -> DataLoader[Batch]:
    """A loader of batches.

    Args:
        batches: The images.
        sampler: Which images each batch holds.
        placement: Where images are kept, and how many processes decode them.
    """
    workers = placement.num_workers if batches.in_workers and not isinstance(batches.images, MemoryImages) else 0
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        # So that a GPU fetches them while it is at the batch before.
        pin_memory=workers > 0 and placement.device.type == "cuda",
    )
