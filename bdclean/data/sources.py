"""Where images come from: drawn by the program, torchvision's sets by name, `.npz` and `.npy` files, folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets

from bdclean import InputError, first_line
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images, MemoryImages
from bdclean.data.procedural import draw_procedural
from bdclean.data.shapes import CLASSES, SIDE, draw_shapes
from bdclean.data.shared import together
from bdclean.decoding import SUFFIXES

ONLY = "the array"
"""What the one array of an `.npy` file is called in messages."""
MOST_CLASSES = 100_000
SHAPES_IMAGES = {"train": 30_000, "test": 2_000}
SHAPES_SEED = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Standard:
    """What is known of a torchvision set before it has been downloaded."""

    dataset: type
    num_classes: int
    image_size: int
    file: str
    uses_split: bool = False


STANDARD = {
    "cifar10": Standard(datasets.CIFAR10, 10, 32, "cifar-10-python.tar.gz"),
    "cifar100": Standard(datasets.CIFAR100, 100, 32, "cifar-100-python.tar.gz"),
    "gtsrb": Standard(datasets.GTSRB, 43, 32, "gtsrb/ (unpacked)", uses_split=True),
    "svhn": Standard(datasets.SVHN, 10, 32, "train_32x32.mat and test_32x32.mat", uses_split=True),
    "stl10": Standard(datasets.STL10, 10, 96, "stl10_binary.tar.gz", uses_split=True),
    # 28 pixels in the files; 32 is what networks with five halvings need.
    "mnist": Standard(datasets.MNIST, 10, 32, "MNIST/raw/ (four idx files)"),
    "fashion_mnist": Standard(datasets.FashionMNIST, 10, 32, "FashionMNIST/raw/ (four idx files)"),
}


class Source:
    """A labelled or unlabeled set of images with a training and a test part, either of which may be missing.

    Args:
        name: `shapes`, a torchvision set (`cifar10`, ...), an `.npz` file, or a folder; and without labels an `.npy`
            file or `procedural`.
        root: Folder in which torchvision's files are looked for and downloaded to.
        option: The option this name was given with, for messages.

    Raises:
        InputError: If there is no such source.
    """

    def __init__(self, name: str, root: str = "data", option: str = "--data.source") -> None:
        self.name = name
        self.root = root
        self.option = f"{option} {name}"
        self.path = Path(name)
        self.image_size: int | None
        self.numbered = False
        """Whether the classes are called by their numbers, of which some may be missing."""
        if name == "shapes":
            self.num_classes, self.image_size = len(CLASSES), SIDE
        elif name in STANDARD:
            self.num_classes, self.image_size = STANDARD[name].num_classes, STANDARD[name].image_size
        elif self.path.is_dir():
            self.classes = self._class_names()
            self.numbered = bool(self.classes) and all(name.isdecimal() for name in self.classes)
            self.num_classes, self.image_size = max(self.classes.values(), default=-1) + 1, None
        elif self.path.is_file() and self.path.suffix in (".npz", ".npy"):
            self.num_classes, self.image_size = self._array_shape()
            # Training images have all classes; test images may be few.
            self.numbered = not self.has("train")
        elif name == "procedural":
            self.num_classes, self.image_size = 0, None
        else:
            raise InputError(
                f"{self.option}: neither a folder, nor an .npz or .npy file, nor one of shapes, procedural, "
                f"{', '.join(STANDARD)}"
            )

    def download(self) -> None:
        """Fetch a torchvision set if its files are not there: to be called by one process."""
        if self.name in STANDARD:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            # Other programs may be at it too: the cells of a benchmark.
            with FileLock(Path(self.root, f"{self.name}.lock")):
                for split in ("train", "test"):
                    self._standard(split, download=True)

    def load(self, split: str, image_size: int) -> Images:
        """The images of a part, in memory once for all processes that have images together.

        Args:
            split: `train` or `test`.
            image_size: Height and width that the images shall have, in pixels.

        Raises:
            InputError: If the part is missing, or cannot be read.
        """
        name = f"{Path(self.root).resolve()} {self.name} {split} {image_size}"
        return together(name, lambda: self._load(split, image_size))

    def _load(self, split: str, image_size: int) -> Images:
        if self.name == "shapes":
            pixels, labels = draw_shapes(SHAPES_IMAGES[split], SHAPES_SEED[split])
            return ArrayImages(pixels, image_size, labels)
        if self.name in STANDARD:
            return self._load_standard(split, image_size)
        if self.path.is_dir():
            return self._load_folder(split, image_size)
        pixels, labels = self._pixels(f"x_{split}"), self._labels(f"y_{split}")
        if len(pixels) != len(labels):
            raise InputError(f"{self.option}: {len(pixels)} images in x_{split}, {len(labels)} labels in y_{split}")
        return ArrayImages(pixels, image_size, labels)

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> Images:
        """All images that can serve without labels: of a folder every one, else the training part if there is one.

        Args:
            image_size: Height and width that the images shall have, in pixels.
            count: How many are drawn, if the program draws them.
            seed: Of what is drawn.
        """
        if self.name == "procedural":
            return MemoryImages(draw_procedural(count, image_size, seed))
        if self.name not in STANDARD and self.path.is_dir():
            return FileImages(self._files(self.path, loose=True), image_size, self.option)
        if self.has("train"):
            return self.load("train", image_size)
        return ArrayImages(self._pixels(self._unlabeled_key()), image_size)

    def has(self, split: str) -> bool:
        """Whether there is a `train` or `test` part with labels."""
        if self.name == "shapes" or self.name in STANDARD:
            return True
        if self.name == "procedural":
            return False
        if self.path.is_dir():
            return bool(self.classes) and self._part(split) is not None
        return {f"x_{split}", f"y_{split}"} <= self._names()

    # torchvision

    def _standard(self, split: str, download: bool) -> Any:
        known = STANDARD[self.name]
        which: dict[str, Any] = {"split": split} if known.uses_split else {"train": split == "train"}
        try:
            return known.dataset(self.root, download=download, **which)
        except ModuleNotFoundError as error:
            raise InputError(
                f"{self.option}: torchvision reads it with {error.name}: pip install {error.name}"
            ) from error
        except (RuntimeError, OSError) as error:
            raise InputError(
                f"{self.option}: not in {self.root}/, and the download failed ({first_line(error)}); put {known.file} "
                f"into {self.root}/ (--data.root), or take another source: shapes, a folder, an .npz file"
            ) from error

    def _load_standard(self, split: str, image_size: int) -> Images:
        data = self._standard(split, download=False)
        if isinstance(data, datasets.GTSRB):
            paths = [Path(path) for path, _ in data._samples]
            return FileImages(paths, image_size, self.option, torch.tensor([label for _, label in data._samples]))
        pixels = torch.as_tensor(data.data)
        labels = torch.as_tensor(data.labels if hasattr(data, "labels") else data.targets).long()
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        elif pixels.shape[1] == 3:
            pixels = pixels.permute(0, 2, 3, 1).contiguous()
        return ArrayImages(pixels, image_size, labels)

    # .npz and .npy files

    def _arrays(self) -> Any:
        try:
            # Arrays of objects are pickles, and a pickle can run code.
            return np.load(self.path, allow_pickle=False)
        except Exception as error:  # a damaged archive can fail in any way
            raise InputError(f"{self.option}: not a readable file of arrays ({error})") from error

    def _names(self) -> set[str]:
        archive = self._arrays()
        if not isinstance(archive, np.lib.npyio.NpzFile):
            return {ONLY}
        with archive:
            return set(archive)

    def _read(self, key: str) -> np.ndarray:
        if key not in (names := self._names()):
            raise InputError(f"{self.option}: has no array {key}, but {', '.join(sorted(names))}")
        arrays = self._arrays()
        try:
            return np.asarray(arrays if key == ONLY else arrays[key])
        except Exception as error:  # as above
            raise InputError(f"{self.option}: array {key} cannot be read ({error})") from error

    def _unlabeled_key(self) -> str:
        names = self._names()
        known = [name for name in ("x_train", "x_test", "x", "images") if name in names]
        if not known and len(names) != 1:
            raise InputError(
                f"{self.option}: has neither x_train nor x_test, but {', '.join(sorted(names)) or 'nothing'}"
            )
        return known[0] if known else names.pop()

    def _array_shape(self) -> tuple[int, int]:
        names = self._names()
        # The test part is the smaller one.
        first = "x_test" if "x_test" in names else self._unlabeled_key()
        labels = [self._labels(key) for key in ("y_train", "y_test") if key in names]
        num_classes = max((int(values.max()) + 1 for values in labels if len(values)), default=0)
        return num_classes, self._pixels(first).shape[1]

    def _labels(self, key: str) -> Tensor:
        labels = self._read(key)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
            raise InputError(f"{self.option}: {key} must hold class numbers, not {labels.dtype} {labels.shape}")
        return torch.from_numpy(labels.astype(np.int64))

    def _pixels(self, key: str) -> Tensor:
        array = self._read(key)
        pixels = array[..., None] if array.ndim == 3 else array
        if pixels.ndim == 4 and pixels.shape[-1] not in (1, 3) and pixels.shape[1] in (1, 3):
            pixels = pixels.transpose(0, 2, 3, 1)
        shaped = pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and len(pixels)
        if shaped and np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= 0 and pixels.max() <= 1:
            pixels = np.round(pixels * 255).astype(np.uint8)
        if not shaped or pixels.dtype != np.uint8:
            raise InputError(
                f"{self.option}: {key} must be (N, H, W, 3), uint8 or in [0, 1], not {array.dtype} {array.shape}"
            )
        return torch.from_numpy(np.ascontiguousarray(pixels))

    # Folders

    def _part(self, split: str) -> Path | None:
        parts = {"train": ("train",), "test": ("test", "val")}
        found = {key: [n for n in names if (self.path / n).is_dir()] for key, names in parts.items()}
        if found[split]:
            return self.path / found[split][0]
        # Folders of classes, and nothing that says train or test: a test set.
        return self.path if split == "test" and not found["train"] else None

    def _class_names(self) -> dict[str, int]:
        """The class folders and their numbers: their own if all are called by numbers, else their order by name.

        Empty for loose images.
        """
        parts = [part for split in ("train", "test") if (part := self._part(split))]
        folders = {folder.name for part in parts for folder in part.iterdir() if folder.is_dir()}
        names = sorted(name for name in folders if not name.startswith("."))
        if names and all(name.isdecimal() and int(name) < MOST_CLASSES for name in names):
            return {name: int(name) for name in names}
        return {name: index for index, name in enumerate(names)}

    def _files(self, folder: Path, loose: bool = False) -> list[Path]:
        """All images in a folder and those in it; of loose ones also files without a suffix, which may be images."""
        suffixes = SUFFIXES | {""} if loose else SUFFIXES
        files = sorted(path for path in _inside(folder) if path.suffix.lower() in suffixes)
        if not files:
            raise InputError(f"{self.option}: no images in {folder}")
        return files

    def _load_folder(self, split: str, image_size: int) -> FileImages:
        part = self._part(split)
        if part is None or not self.classes:
            wanted = "train/" if split == "train" else "test/ or val/"
            raise InputError(f"{self.option}: has no folder {wanted} with one folder a class")
        files = self._files(part)
        labels = [self.classes.get(path.relative_to(part).parts[0], -1) for path in files]
        if -1 in labels:
            raise InputError(f"{self.option}: {files[labels.index(-1)]} lies in no class folder")
        return FileImages(files, image_size, self.option, torch.tensor(labels))


def _inside(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files in a folder, in those that lie in it, and in those that links in it lead to, but hidden ones.

    Args:
        folder: The folder.
        above: In which folders it lies, without links: a link to one of them leads round in a circle.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _inside(Path(entry), above | {real})
            elif entry.is_file():
                yield Path(entry)
