"""NumPy files as sources of images."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from bdclean import first_ten
from bdclean.checkpoint import Triggered
from bdclean.data.arrays import ArrayFile, open_arrays
from bdclean.data.images import ArrayImages
from bdclean.data.poisoned_sets import Facts, parsed_settings, target_of
from bdclean.data.sources.base import Source, count_from_one
from bdclean.errors import InputError
from bdclean.registry import ARRAY_SUFFIXES


class Arrays(Source):
    """An `.npz` file with labels; without labels also others, and an `.npy` file.

    Images and labels are x_train, y_train, x_test and y_test, or images and labels, or data and targets. A poisoned set
    also has the indices of its poisoned images, and may have triggered test images.
    """

    def __init__(self, name: str, root: str, parameter: str) -> None:
        super().__init__(name, root, parameter)
        self.arrays: ArrayFile = open_arrays(Path(name), self.option)
        self.image_size = self.arrays.image_size

    @classmethod
    def has_name(cls, name: str) -> bool:
        return os.path.isfile(name) and Path(name).suffix in ARRAY_SUFFIXES

    @cached_property
    def _present(self) -> frozenset[int]:
        """The classes that have images."""
        train, test = self.arrays.classes("train"), self.arrays.classes("test")
        if train and test - train:
            raise InputError(
                *self.option, f"y_test has classes that y_train does not have: {first_ten(sorted(test - train))}"
            )
        return train | test

    @property
    def num_classes(self) -> int:
        return max(self._present, default=-1) + 1

    @property
    def numbered(self) -> bool:
        # A training part has all classes; a test part alone may be small and miss some.
        return not self.has("train")

    @property
    def notices(self) -> list[str]:
        facts = self.poisoned
        poisoned = [] if facts is None else [f"{self.option}: {facts.sentence}"]
        return [*poisoned, *count_from_one(self.option, self._present)]

    @cached_property
    def poisoned(self) -> Facts | None:
        if "indices" not in self.arrays.headers or not self.has("train"):
            return None
        labels = self.arrays.labels(self.arrays.names("train")[1])
        indices = self.arrays.integers("indices", len(labels), f"indices of poisoned images below {len(labels)}")
        settings = parsed_settings(self.arrays.text("settings"))
        return Facts(len(labels), indices, target_of(labels, indices), settings)

    def triggered(self) -> Triggered | None:
        if "triggered_images" not in self.arrays.headers:
            return None
        pixels, labels = self.arrays.pair("triggered_images", "triggered_labels")
        targets = self.arrays.integers("triggered_targets", self.num_classes, f"classes below {self.num_classes}")
        if len(targets) != len(labels) or labels.max() >= self.num_classes:
            raise InputError(*self.option, "its triggered test images, classes and targets do not fit together")
        return Triggered(pixels, targets, labels)

    def has(self, split: str) -> bool:
        return self.arrays.has(split)

    def load(self, split: str, image_size: int) -> ArrayImages:
        pixels, labels = self.arrays.part(split)
        return ArrayImages(pixels, image_size, labels)

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> ArrayImages:
        if self.has("train"):
            return self.load("train", image_size)
        return ArrayImages(self.arrays.pixels(self.arrays.unlabeled), image_size)
