"""Sets of images, and sets that are one tensor in memory."""

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
    """Copy a CPU tensor to a device; to a GPU from pinned memory, without synchronising."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def to_float(pixels: Tensor) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float in [0, 1], in channels-last layout; float images are only permuted."""
    images = pixels.permute(0, 3, 1, 2)
    return images if images.is_floating_point() else images / 255


def to_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) float in [0, 1] to (N, H, W, C) uint8, as in image files."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


class Images(ABC):
    """Images of one size with their labels.

    Args:
        labels: (N,) int64 true classes; -1 for an image without a label.
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
        """Size of the images in memory, in bytes."""

    @abstractmethod
    def in_memory(self, num_workers: int) -> MemoryImages:
        """The same images, decoded."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that identifies the images and their labels."""


class StoredImages(Images):
    """Images in one tensor. A large subset shares the pixels, and has only indices of its own.

    Args:
        pixels: (N, H, W, C).
        labels: (N,) int64 true classes; None for unlabeled images.
    """

    def __init__(self, pixels: Tensor, labels: Tensor | None = None) -> None:
        super().__init__(torch.full((len(pixels),), -1) if labels is None else labels)
        self.pixels = pixels
        self.rows: Tensor | None = None
        """Index of each image in the tensor; None if the images are in order."""

    def subset(self: Stored, indices: Tensor) -> Stored:
        part = copy.copy(self)
        part.labels = self.labels[indices]
        if 2 * len(indices) > len(self.pixels):
            part.rows = indices if self.rows is None else self.rows[indices]
        else:
            # Copy a small subset, so that it does not keep all other pixels alive.
            part.pixels, part.rows = self.stored(indices), None
        return part

    def stored(self, indices: Tensor) -> Tensor:
        """The stored images of these indices, (n, H, W, C), on their device."""
        rows = indices if self.rows is None else self.rows[indices]
        # `index_select` copies whole images, and indexing with a tensor copies element by element.
        return self.pixels.index_select(0, across(rows, self.pixels.device))

    def whole(self) -> Tensor:
        """All stored images, (N, H, W, C). The caller must not change them."""
        return self.pixels if self.rows is None else self.stored(torch.arange(len(self)))

    def parts(self) -> Iterator[Tensor]:
        """Indices of all images, in chunks."""
        yield from torch.split(torch.arange(len(self)), 1024)

    def fingerprint(self) -> str:
        return digest(self.labels, (self.stored(part).cpu().numpy() for part in self.parts()))


class MemoryImages(StoredImages):
    """Images in memory, ready for use.

    Args:
        pixels: (N, H, W, 3) uint8, or float in [0, 1].
        labels: (N,) int64 true classes; None for unlabeled images.
    """

    def batch(self, indices: Tensor) -> Tensor:
        return self.stored(indices)

    def size_in_memory(self) -> int:
        return len(self) * self.pixels.shape[1:].numel() * self.pixels.element_size()

    def in_memory(self, num_workers: int) -> MemoryImages:
        return self

    def to(self, device: torch.device) -> MemoryImages:
        """The same images on a device; only the pixels of the subset are copied."""
        if device == self.pixels.device:
            return self
        return MemoryImages(self.whole().to(device), self.labels)


class ArrayImages(StoredImages):
    """Images of another size or in grey, which are resized and converted to RGB on demand.

    Args:
        pixels: (N, H, W, 1 or 3) uint8.
        size: Height and width of the resized images, in pixels.
        labels: (N,) int64 true classes; None for unlabeled images.
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
    hashed = hashlib.sha256()
    for content in contents:
        hashed.update(content)
    hashed.update(labels.cpu().numpy().tobytes())
    return hashed.hexdigest()
