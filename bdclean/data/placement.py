"""Where images are kept in use: in memory, on a device, or on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from bdclean.data.images import Images

MEMORY_LIMIT = 2**31
"""Maximum size of a set of images that is kept in memory on the device by default, in bytes."""


@dataclass
class Placement:
    """Where images are kept, and how many processes use them. The engine sets device and processes before training.

    Attributes:
        keep: Whether to keep sets in memory; None to keep sets of up to `limit` bytes.
        num_workers: Number of processes that decode images that are not in memory.
        device: Device for images in memory.
        processes: Number of processes of the training.
        limit: Maximum size of a set that is kept by default, in bytes.
    """

    keep: bool | None
    num_workers: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: int = 1
    limit: int = MEMORY_LIMIT

    def fits(self, size: int) -> bool:
        """Whether to keep `size` bytes in memory."""
        return size <= self.limit if self.keep is None else self.keep

    def place(self, images: Images) -> Images:
        """Move images into memory on the device if they fit."""
        if not self.fits(images.size_in_memory()):
            return images
        return images.in_memory(self.num_workers).to(self.device)
