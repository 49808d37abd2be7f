"""Folders of image files."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import torch

from bdclean import printable
from bdclean.checkpoint import Triggered
from bdclean.data.files import FileImages
from bdclean.data.layouts import Layout, read_layout
from bdclean.data.notices import say_left_out
from bdclean.data.poisoned_sets import Facts, read_facts, read_triggered
from bdclean.data.sources.base import Source, count_from_one
from bdclean.data.sources.saved import holds_saved
from bdclean.data.sources.tars import holds_tars
from bdclean.data.walk import walk
from bdclean.decoding import SUFFIXES
from bdclean.errors import InputError
from bdclean.registry import image_sets

LONGEST_NAME = 60
"""Maximum length of the name of a class in output, in characters."""


class Folder(Source):
    """Images in one folder per class, or with a file of their classes; as unlabeled images, all that it contains."""

    @classmethod
    def has_name(cls, name: str) -> bool:
        other = name in image_sets() or holds_saved(name)
        return os.path.isdir(name) and not other and not holds_tars(name)

    @cached_property
    def _layout(self) -> Layout:
        return read_layout(Path(self.name), self.option)

    @property
    def num_classes(self) -> int:
        return self._layout.num_classes

    @property
    def numbered(self) -> bool:
        return self._layout.numbered

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(_shown(name) for name in self._layout.names)

    @property
    def notices(self) -> list[str]:
        present = frozenset(self._layout.numbers.values()) if self.numbered else frozenset()
        notices = [f"{self.option}: {notice}" for notice in self._layout.notices]
        if self.poisoned is not None:
            notices.append(f"{self.option}: {self.poisoned.sentence}")
        return [*notices, *count_from_one(self.option, present)]

    @cached_property
    def poisoned(self) -> Facts | None:
        return read_facts(Path(self.name), self.option)

    def triggered(self) -> Triggered | None:
        return None if self.poisoned is None else read_triggered(Path(self.name), self.num_classes, self.option)

    def has(self, split: str) -> bool:
        return split in self._layout.parts

    def load(self, split: str, image_size: int) -> FileImages:
        part = self._layout.parts.get(split)
        if part is None:
            wanted = "train/" if split == "train" else "test/ or val/"
            raise InputError(*self.option, f"has no folder {wanted} with one folder a class")
        found, left_out = part.read()
        say_left_out(self.option, left_out)
        if not found:
            raise InputError(*self.option, f"no images in {part.folder}")
        numbers = self._layout.numbers
        labels = torch.tensor([numbers[name] for _, name in found])
        return FileImages([path for path, _ in found], image_size, self.option, labels)

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> FileImages:
        files, left_out = walk(Path(self.name))
        # Files without a suffix may be images.
        images = [path for path in files if path.suffix.lower() in SUFFIXES | {""}]
        say_left_out(self.option, left_out)
        if not images:
            raise InputError(*self.option, f"no images in {Path(self.name)}")
        return FileImages(images, image_size, self.option)


def _shown(name: str) -> str:
    """The printable, shortened name of a class, as folders can have any name."""
    line = printable(name)
    return line if len(line) <= LONGEST_NAME else f"{line[:LONGEST_NAME]}..."
