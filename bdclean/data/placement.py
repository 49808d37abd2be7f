"""Where images are kept while they are worked on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from bdclean.data.images import Images

MEMORY_LIMIT = 2**31
"""Bytes up to which a set of images is kept in memory, on the device."""


@dataclass
class Placement:
    """Where images are kept, and by how many processes they are worked on. The engine says so before the first batch.

    Attributes:
        keep: Whether sets are kept in memory; None for those of up to 2 GiB.
        num_workers: Processes that decode images which are not.
        device: Where those in memory are.
        processes: Of the training, together.
    """

    keep: bool | None
    num_workers: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: int = 1

    def fits(self, size: int) -> bool:
        """Whether so many bytes may be kept in memory."""
        return size <= MEMORY_LIMIT if self.keep is None else self.keep

    def place(self, images: Images) -> Images:
        """Bring images into memory, onto the device, where they are few enough."""
        if not self.fits(images.size_in_memory()):
            return images
        return images.in_memory(self.num_workers).to(self.device)
