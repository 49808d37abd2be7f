"""Where images come from: drawn by the program, torchvision's sets by name, `.npz` and `.npy` files, folders."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import torch

from bdclean import InputError, first_ten, printable
from bdclean.data.arrays import ArrayFile
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images, MemoryImages
from bdclean.data.layouts import Layout, read_layout
from bdclean.data.notices import say_left_out
from bdclean.data.procedural import draw_procedural
from bdclean.data.shapes import CLASSES, SIDE, draw_shapes
from bdclean.data.shared import together
from bdclean.data.standard import STANDARD, download_standard, load_standard
from bdclean.data.walk import walk
from bdclean.decoding import SUFFIXES
from bdclean.registry import no_source

EMBEDDED = ("shapes",)
"""Sets that are part of the program: using one reads no file and downloads nothing."""
SHAPES_IMAGES = {"train": 30_000, "test": 2_000}
SHAPES_SEED = {"train": 0, "test": 1}
LISTED = 10
"""Classes that are listed at most."""
LONGEST_NAME = 60
"""Characters of the name of a class that are shown."""


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
        self.arrays: ArrayFile | None = None
        self.folder = False
        self.image_size: int | None = None
        if name == "shapes":
            self.image_size = SIDE
        elif name in STANDARD:
            self.image_size = STANDARD[name].image_size
        elif os.path.isdir(name):
            self.folder = True
        elif os.path.isfile(name) and self.path.suffix in (".npz", ".npy"):
            self.arrays = ArrayFile(self.path, self.option)
            self.image_size = self.arrays.image_size
        elif name != "procedural":
            raise InputError(no_source(option, name))

    # Its classes, which are of no interest where the images serve without labels

    @cached_property
    def _layout(self) -> Layout:
        return read_layout(self.path, self.option)

    @cached_property
    def _present(self) -> frozenset[int]:
        """The classes that have images."""
        if self.arrays is not None:
            train, test = self.arrays.classes("train"), self.arrays.classes("test")
            if train and test - train:
                raise InputError(
                    f"{self.option}: y_test has classes that y_train has not: {first_ten(sorted(test - train))}"
                )
            return train | test
        return frozenset(self._layout.numbers.values()) if self.folder else frozenset()

    @cached_property
    def num_classes(self) -> int:
        """How many classes there are, with those below the largest number that have no images."""
        if self.name == "shapes":
            return len(CLASSES)
        if self.name in STANDARD:
            return STANDARD[self.name].num_classes
        return max(self._present, default=-1) + 1

    @cached_property
    def numbered(self) -> bool:
        """Whether the classes are called by their numbers, of which some may be missing."""
        if self.folder:
            return self._layout.numbered
        # Training images have all classes; test images may be few.
        return self.arrays is not None and not self.arrays.has("train")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, in the order of their numbers; empty if they have no names."""
        if self.name == "shapes":
            return tuple(CLASSES)
        if self.name in STANDARD:
            return STANDARD[self.name].names
        return tuple(_shown(name) for name in self._layout.names) if self.folder else ()

    @property
    def notices(self) -> list[str]:
        """What the user is told of the labels, one line each."""
        lines = list(self._layout.notices) if self.folder else []
        counted = self.numbered or self.arrays is not None
        if counted and self._present and min(self._present) == 1:
            lines.append(
                f"{self.option}: the labels go from 1 to {max(self._present)}, and none is 0. If they count from 1, "
                "subtract 1 from each: networks count from 0"
            )
        return lines

    def describe(self) -> str:
        """The order of the classes, in one line."""
        if self.class_names:
            listed = "; ".join(f"{number} {name}" for number, name in enumerate(self.class_names[:LISTED]))
            more = len(self.class_names) - LISTED
            return f"Classes of {self.option}: {listed}" + (f"; and {more} more" if more > 0 else "")
        return f"Classes of {self.option}: numbers, 0 to {self.num_classes - 1}"

    def has(self, split: str) -> bool:
        """Whether there is a `train` or `test` part with labels."""
        if self.folder:
            return split in self._layout.parts
        return self.arrays.has(split) if self.arrays is not None else self.name != "procedural"

    # Its images

    def download(self) -> None:
        """Fetch a torchvision set if its files are not there: to be called by one process."""
        if self.name in STANDARD:
            download_standard(self.name, self.root, self.option)

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
            return load_standard(self.name, self.root, self.option, split, image_size)
        if self.arrays is not None:
            pixels, labels = self.arrays.part(split)
            return ArrayImages(pixels, image_size, labels)
        return self._load_folder(split, image_size)

    def _load_folder(self, split: str, image_size: int) -> FileImages:
        part = self._layout.parts.get(split)
        if part is None:
            wanted = "train/" if split == "train" else "test/ or val/"
            raise InputError(f"{self.option}: has no folder {wanted} with one folder a class")
        found, left_out = part.read()
        say_left_out(self.option, left_out)
        if not found:
            raise InputError(f"{self.option}: no images in {part.folder}")
        numbers = self._layout.numbers
        labels = torch.tensor([numbers[name] for _, name in found])
        return FileImages([path for path, _ in found], image_size, self.option, labels)

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> Images:
        """All images that can serve without labels: of a folder every one, else the training part if there is one.

        Args:
            image_size: Height and width that the images shall have, in pixels.
            count: How many are drawn, if the program draws them.
            seed: Of what is drawn.
        """
        if self.name == "procedural":
            return MemoryImages(draw_procedural(count, image_size, seed))
        if self.folder:
            files, left_out = walk(self.path)
            # Files without a suffix may be images.
            images = [path for path in files if path.suffix.lower() in SUFFIXES | {""}]
            say_left_out(self.option, left_out)
            if not images:
                raise InputError(f"{self.option}: no images in {self.path}")
            return FileImages(images, image_size, self.option)
        if self.has("train") or self.arrays is None:
            return self.load("train", image_size)
        return ArrayImages(self.arrays.pixels(self.arrays.unlabeled), image_size)


def _shown(name: str) -> str:
    """The name of a class for people: folders may be called anything."""
    line = printable(name)
    return line if len(line) <= LONGEST_NAME else f"{line[:LONGEST_NAME]}..."
