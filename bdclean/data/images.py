"""Sets of images, and those that are in memory as one tensor."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bdclean.resizing import Resize

Stored = TypeVar("Stored", bound="StoredImages")


def across(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what that is still at: from pinned memory, to a GPU."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def to_float(pixels: Tensor) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float in [0, 1], in channels-last layout; floats stay what they are."""
    images = pixels.permute(0, 3, 1, 2)
    return images if images.is_floating_point() else images / 255


def to_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) float in [0, 1] to (N, H, W, C) uint8: an attacker hands over image files."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


class Images(ABC):
    """Images of one size with their labels.

    Args:
        labels: (N,) int64 true classes, or -1 where an image has none.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def resized(self, resize: Resize | None) -> Images:
        """The same images, made from pictures of another size in another way; images of the right size stay."""
        return self

    @abstractmethod
    def subset(self, indices: Tensor) -> Images:
        """The images of these indices, in this order."""

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """The images of these indices as one (n, H, W, 3) uint8 tensor."""

    @abstractmethod
    def size_in_memory(self) -> int:
        """Bytes that the images take in memory."""

    @abstractmethod
    def in_memory(self, num_workers: int) -> MemoryImages:
        """The same images, all of them decoded."""

    @abstractmethod
    def fingerprint(self) -> str:
        """What tells these images, and their labels, from others."""


class StoredImages(Images):
    """Images that lie in one tensor. A subset of most of them has numbers of its own, but no pixels.

    Args:
        pixels: (N, H, W, C).
        labels: (N,) int64 true classes; without them the images are unlabeled.
    """

    def __init__(self, pixels: Tensor, labels: Tensor | None = None) -> None:
        super().__init__(torch.full((len(pixels),), -1) if labels is None else labels)
        self.pixels = pixels
        self.rows: Tensor | None = None
        """Where in the tensor each image lies, if not where its number says."""

    def subset(self: Stored, indices: Tensor) -> Stored:
        part = copy.copy(self)
        part.labels = self.labels[indices]
        if 2 * len(indices) > len(self.pixels):
            part.rows = indices if self.rows is None else self.rows[indices]
        else:
            # So that nobody holds on to the others for a few.
            part.pixels, part.rows = self.stored(indices), None
        return part

    def stored(self, indices: Tensor) -> Tensor:
        """The images of these indices as they lie there, (n, H, W, C), on their device."""
        rows = indices if self.rows is None else self.rows[indices]
        # Whole images at once, where an index would copy number by number.
        return self.pixels.index_select(0, across(rows, self.pixels.device))

    def whole(self) -> Tensor:
        """All images as they lie there, (N, H, W, C), not to be changed."""
        return self.pixels if self.rows is None else self.stored(torch.arange(len(self)))

    def parts(self) -> Iterator[Tensor]:
        """Numbers of all images, some at a time."""
        yield from torch.split(torch.arange(len(self)), 1024)

    def fingerprint(self) -> str:
        return digest(self.labels, (self.stored(part).cpu().numpy() for part in self.parts()))


class MemoryImages(StoredImages):
    """Images in memory, ready for use.

    Args:
        pixels: (N, H, W, 3) uint8, or float in [0, 1].
        labels: As in StoredImages.
    """

    def batch(self, indices: Tensor) -> Tensor:
        return self.stored(indices)

    def size_in_memory(self) -> int:
        return len(self) * self.pixels.shape[1:].numel() * self.pixels.element_size()

    def in_memory(self, num_workers: int) -> MemoryImages:
        return self

    def to(self, device: torch.device) -> MemoryImages:
        """The same images on a device; a subset that comes from elsewhere brings its own pixels alone."""
        if device == self.pixels.device:
            return self
        return MemoryImages(self.whole().to(device), self.labels)


class ArrayImages(StoredImages):
    """Images of another size or without colour, which get size and colour when they are wanted.

    Args:
        pixels: (N, H, W, 1 or 3) uint8.
        size: Height and width of the images they become, in pixels.
        labels: As in StoredImages.
    """

    def __init__(self, pixels: Tensor, size: int, labels: Tensor | None = None) -> None:
        super().__init__(pixels, labels)
        self.size = size
        self.resize: Resize | None = None

    def resized(self, resize: Resize | None) -> ArrayImages:
        images = copy.copy(self)
        images.resize = resize
        return images

    def batch(self, indices: Tensor) -> Tensor:
        pixels = self.stored(indices).expand(-1, -1, -1, 3)
        if pixels.shape[1:3] == (self.size, self.size):
            return pixels
        if self.resize is not None:
            return self.resize.pixels_of(pixels, self.size)
        resized = transforms.resize(pixels.permute(0, 3, 1, 2), [self.size, self.size], antialias=True)
        return resized.permute(0, 2, 3, 1)

    def size_in_memory(self) -> int:
        return len(self) * self.size * self.size * 3

    def in_memory(self, num_workers: int) -> MemoryImages:
        if self.pixels.shape[1:] == (self.size, self.size, 3):
            images = MemoryImages(self.pixels, self.labels)
            images.rows = self.rows
            return images
        return MemoryImages(torch.cat([self.batch(part) for part in self.parts()]).contiguous(), self.labels)


def digest(labels: Tensor, contents: Iterable[Any]) -> str:
    """A hash of labels (N,) and of bytes, or of arrays."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    found.update(labels.cpu().numpy().tobytes())
    return found.hexdigest()
