"""Sets of images: in memory as one uint8 tensor, or as files that are decoded when they are wanted."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm  # comes with lightning, which draws its progress bars with it

from bdclean import InputError, first_line, first_ten

Image.init()
# What Pillow may take a file for: all it reads by itself. EPS starts Ghostscript, the others only name a file's format.
FORMATS = tuple(sorted({*Image.OPEN} - {"EPS", "BUFR", "EMF", "GRIB", "HDF5", "MPEG", "WMF"}))
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
MOST_PIXELS = 100_000_000
"""A larger image is not decoded, as a few of them would fill the memory."""
# An image is judged by whether it can be decoded, not by what Pillow thinks of it.
warnings.filterwarnings("ignore", module="PIL")


Stored = TypeVar("Stored", bound="StoredImages")


def across(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what that is still at: from pinned memory, to a GPU."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


class Images(ABC):
    """Images of one size with their labels.

    Args:
        labels: (N,) int64 true classes, or -1 where an image has none.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

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
        return _digest(self.labels, (self.stored(part).cpu().numpy() for part in self.parts()))


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

    def batch(self, indices: Tensor) -> Tensor:
        pixels = self.stored(indices).expand(-1, -1, -1, 3)
        if pixels.shape[1:3] == (self.size, self.size):
            return pixels
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


class FileImages(Images):
    """Image files of any size and format that Pillow reads, cut to a square: the centre, resized.

    Args:
        paths: The files.
        size: Height and width of the images they become, in pixels.
        option: The option that named their folder, for messages.
        labels: (N,) int64 true classes; without them the images are unlabeled.
    """

    def __init__(self, paths: Sequence[Path], size: int, option: str, labels: Tensor | None = None) -> None:
        super().__init__(torch.full((len(paths),), -1) if labels is None else labels)
        self.paths = paths
        self.size = size
        self.option = option

    def subset(self, indices: Tensor) -> FileImages:
        return FileImages([self.paths[i] for i in indices.tolist()], self.size, self.option, self.labels[indices])

    def batch(self, indices: Tensor) -> Tensor:
        pixels = [self._decode(i) for i in indices.tolist()]
        for image, index in zip(pixels, indices.tolist(), strict=True):
            if isinstance(image, str):
                raise InputError(f"{self.option}: {self.paths[index]} is not a readable image ({image})")
        return torch.stack(pixels)  # type: ignore[arg-type]  # all of them are tensors now

    def size_in_memory(self) -> int:
        return len(self) * self.size * self.size * 3

    def in_memory(self, num_workers: int) -> MemoryImages:
        images, unreadable = self._read(len(self), num_workers, keep=True)
        if unreadable:
            raise InputError(f"{self.option}: {unreadable[0]} is not a readable image")
        assert isinstance(images, MemoryImages)
        return images

    def fingerprint(self) -> str:
        files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        return _digest(self.labels, [repr(files).encode()])

    def readable(self, wanted: int, num_workers: int, keep: bool) -> tuple[Images, list[Path]]:
        """The first images that can be decoded.

        Args:
            wanted: At most so many.
            num_workers: Processes that decode.
            keep: Whether they are kept in memory, decoded.

        Returns:
            The images, and the files among those looked at that are none.

        Raises:
            InputError: If these are more than half of them.
        """
        images, unreadable = self._read(wanted, num_workers, keep)
        if len(unreadable) > len(images):
            raise InputError(
                f"{self.option}: {len(unreadable)} of {len(unreadable) + len(images)} images are unreadable: "
                f"{first_ten(unreadable)}"
            )
        return images, unreadable

    def _read(self, wanted: int, num_workers: int, keep: bool) -> tuple[Images, list[Path]]:
        pixels = torch.empty(wanted if keep else 0, self.size, self.size, 3, dtype=torch.uint8)
        chosen: list[int] = []
        unreadable: list[Path] = []
        loader = DataLoader(_Chunks(self, keep), batch_size=None, num_workers=num_workers)
        progress = tqdm(loader, desc="Reading images", leave=False, delay=1, unit_scale=_Chunks.LENGTH)
        for good, bad, chunk in progress:
            good = good[: wanted - len(chosen)]
            if keep and good:
                pixels[len(chosen) : len(chosen) + len(good)] = chunk[: len(good)]
            chosen += good
            unreadable += [self.paths[index] for index in bad]
            if len(chosen) == wanted:
                break
        indices = torch.tensor(chosen, dtype=torch.long)
        return (MemoryImages(pixels[: len(chosen)], self.labels[indices]) if keep else self.subset(indices)), unreadable

    def _decode(self, index: int) -> Tensor | str:
        """The image as (size, size, 3) uint8, or why there is none."""
        try:
            with Image.open(self.paths[index], formats=FORMATS) as file:
                file.draft("RGB", (self.size, self.size))  # JPEG only: decodes at a fraction of the size, much faster
                if math.prod(file.size) > MOST_PIXELS:
                    return f"{file.width}x{file.height} pixels are too many"
                image = _in_colour(ImageOps.exif_transpose(file))
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            square = image.resize(
                (self.size, self.size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
            )
            return torch.from_numpy(np.array(square))
        except Exception as error:  # Pillow's decoders fail in any way
            return first_line(error)


def _digest(labels: Tensor, contents: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    digest.update(labels.cpu().numpy().tobytes())
    return digest.hexdigest()


def _in_colour(image: Image.Image) -> Image.Image:
    """Any image as RGB, 8 bits a channel."""
    if image.mode.startswith(("I", "F")):
        # 16 and 32 bits: Pillow would cut everything off above 255.
        values = np.asarray(image, dtype=np.float64)
        low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (values.min(), values.max())
        image = Image.fromarray(((values - low) * 255 / max(high - low, 1e-9)).astype(np.uint8))
    return image.convert("RGB")


class _Chunks(Dataset[tuple[list[int], list[int], Tensor]]):
    """Runs of consecutive files, for workers to decode: which are images, which are not, and the images."""

    LENGTH = 64

    def __init__(self, images: FileImages, keep: bool) -> None:
        self.images = images
        self.keep = keep

    def __len__(self) -> int:
        return -(-len(self.images) // self.LENGTH)

    def __getitem__(self, index: int) -> tuple[list[int], list[int], Tensor]:
        if index >= len(self):
            raise IndexError(index)
        numbers = range(index * self.LENGTH, min((index + 1) * self.LENGTH, len(self.images)))
        decoded = {number: self.images._decode(number) for number in numbers}
        pixels = {number: image for number, image in decoded.items() if isinstance(image, Tensor)}
        kept = torch.stack([*pixels.values()]) if pixels and self.keep else torch.empty(0)
        return [*pixels], [number for number in numbers if number not in pixels], kept
