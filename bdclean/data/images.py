"""Sets of images: in memory as one uint8 tensor, or as files that are decoded when they are wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm  # comes with lightning, which draws its progress bars with it

from bdclean import InputError

# What Pillow may take a file for. It knows more, and some of it starts other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


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


class MemoryImages(Images):
    """Images in memory.

    Args:
        pixels: (N, H, W, 3) uint8.
        labels: (N,) int64 true classes; without them the images are unlabeled.
    """

    def __init__(self, pixels: Tensor, labels: Tensor | None = None) -> None:
        super().__init__(torch.full((len(pixels),), -1) if labels is None else labels)
        self.pixels = pixels

    def subset(self, indices: Tensor) -> MemoryImages:
        return MemoryImages(self.pixels[indices], self.labels[indices])

    def batch(self, indices: Tensor) -> Tensor:
        return self.pixels[indices.to(self.pixels.device)]

    def size_in_memory(self) -> int:
        return self.pixels.numel()

    def in_memory(self, num_workers: int) -> MemoryImages:
        return self

    def resized(self, size: int) -> MemoryImages:
        """The same images at `size` pixels a side, in colour: no copy where they have that size."""
        pixels = self.pixels.expand(-1, -1, -1, 3)
        if pixels.shape[1:3] == (size, size):
            return MemoryImages(pixels, self.labels)
        chunks = [
            transforms.resize(chunk.permute(0, 3, 1, 2), [size, size], antialias=True).permute(0, 2, 3, 1)
            for chunk in torch.split(pixels, 4096)
        ]
        return MemoryImages(torch.cat(chunks).contiguous(), self.labels)


class FileImages(Images):
    """Image files of any size and format that Pillow reads, cut to a square: short side resized, centre kept.

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
        return torch.stack([self._decode(self.paths[i]) for i in indices.tolist()])

    def size_in_memory(self) -> int:
        return len(self) * self.size * self.size * 3

    def in_memory(self, num_workers: int) -> MemoryImages:
        pixels = torch.empty(len(self), self.size, self.size, 3, dtype=torch.uint8)
        loader = DataLoader(_Chunks(self), batch_size=None, num_workers=num_workers)
        for start, chunk in tqdm(loader, desc="Reading images", leave=False, delay=1, unit_scale=_Chunks.LENGTH):
            pixels[start : start + len(chunk)] = chunk
        return MemoryImages(pixels, self.labels)

    def _decode(self, path: Path) -> Tensor:
        try:
            with Image.open(path, formats=FORMATS) as file:
                file.draft("RGB", (self.size, self.size))  # JPEG only: decodes at a fraction of the size, much faster
                image = ImageOps.exif_transpose(file).convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.option}: {path} is not a readable image ({error})") from error
        pixels = transforms.resize(transforms.pil_to_tensor(image), [self.size], antialias=True)
        return transforms.center_crop(pixels, [self.size, self.size]).permute(1, 2, 0)


class _Chunks(Dataset[tuple[int, Tensor]]):
    """Runs of consecutive images, for workers to decode."""

    LENGTH = 64

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return -(-len(self.images) // self.LENGTH)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        if index >= len(self):
            raise IndexError(index)
        start = index * self.LENGTH
        return start, self.images.batch(torch.arange(start, min(start + self.LENGTH, len(self.images))))
