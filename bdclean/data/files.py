"""Sets of image files, decoded on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bdclean import first_ten
from bdclean.data.images import Images, MemoryImages, digest
from bdclean.decoding import decode
from bdclean.errors import Given, InputError
from bdclean.resizing import Resize


class FileImages(Images):
    """Image files of any size and any format that Pillow reads, which become square images.

    Args:
        paths: The files.
        size: Height and width of the resized images, in pixels.
        option: The parameter that named their folder, for messages.
        labels: (N,) int64 true classes; None for unlabeled images.
        resize: How an image becomes square, as in `bdclean.decoding.square`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        option: Given,
        labels: Tensor | None = None,
        resize: Resize | None = None,
    ) -> None:
        super().__init__(torch.full((len(paths),), -1) if labels is None else labels)
        self.paths = paths
        self.size = size
        self.option = option
        self.resize = resize

    def resized(self, resize: Resize | None) -> FileImages:
        return FileImages(self.paths, self.size, self.option, self.labels, resize)

    def subset(self, indices: Tensor) -> FileImages:
        paths = [self.paths[i] for i in indices.tolist()]
        return FileImages(paths, self.size, self.option, self.labels[indices], self.resize)

    def batch(self, indices: Tensor) -> Tensor:
        pixels = [decode(self.paths[i], self.size, self.resize) for i in indices.tolist()]
        for image, index in zip(pixels, indices.tolist(), strict=True):
            if isinstance(image, str):
                raise InputError(*self.option, f"{self.paths[index]} is not a readable image ({image})")
        return torch.stack(pixels)  # type: ignore[arg-type]  # all of them are tensors now

    def size_in_memory(self) -> int:
        return len(self) * self.size * self.size * 3

    def in_memory(self, num_workers: int) -> MemoryImages:
        images, unreadable = self._read(len(self), num_workers, keep=True)
        if unreadable:
            reason = decode(unreadable[0], self.size, self.resize)
            raise InputError(*self.option, f"{unreadable[0]} is not a readable image ({reason})")
        assert isinstance(images, MemoryImages)
        return images

    def fingerprint(self) -> str:
        files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        return digest(self.labels, [repr((files, self.resize)).encode()])

    def readable(self, wanted: int, num_workers: int, keep: bool) -> tuple[Images, list[Path]]:
        """The first images that can be decoded.

        Args:
            wanted: Maximum number of images.
            num_workers: Number of processes that decode.
            keep: Whether to keep the decoded images in memory.

        Returns:
            The images, and the unreadable files among those that were tried.

        Raises:
            InputError: If more than half of the tried files are unreadable.
        """
        images, unreadable = self._read(wanted, num_workers, keep)
        if len(unreadable) > len(images):
            raise InputError(
                *self.option,
                f"{len(unreadable)} of {len(unreadable) + len(images)} images are unreadable: {first_ten(unreadable)}",
            )
        return images, unreadable

    def _read(self, wanted: int, num_workers: int, keep: bool) -> tuple[Images, list[Path]]:
        pixels = torch.empty(wanted if keep else 0, self.size, self.size, 3, dtype=torch.uint8)
        chosen: list[int] = []
        unreadable: list[Path] = []
        # A generator of its own, as loaders draw a seed, and training should not depend on how images are stored.
        own = torch.Generator()
        loader = DataLoader(_Chunks(self, keep), batch_size=None, num_workers=num_workers, generator=own)
        # `disable=None` shows the bar only in a terminal.
        progress = tqdm(loader, desc="Reading images", leave=False, delay=1, unit_scale=_Chunks.LENGTH, disable=None)
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


class _Chunks(Dataset[tuple[list[int], list[int], Tensor]]):
    """Chunks of consecutive files for workers to decode: indices of readable and unreadable files, and the images."""

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
        paths, size, resize = self.images.paths, self.images.size, self.images.resize
        decoded = {number: decode(paths[number], size, resize) for number in numbers}
        pixels = {number: image for number, image in decoded.items() if isinstance(image, Tensor)}
        kept = torch.stack([*pixels.values()]) if pixels and self.keep else torch.empty(0)
        return [*pixels], [number for number in numbers if number not in pixels], kept
