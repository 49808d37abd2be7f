"""The embedded data set, which the program draws."""

from __future__ import annotations

from bdclean.data.cache import cached, source_of
from bdclean.data.images import ArrayImages
from bdclean.data.shapes import CLASSES, SIDE, draw_shapes
from bdclean.data.sources.base import Source

NAMES = ("shapes",)
IMAGES = {"train": 30_000, "test": 2_000}
"""Number of images of each part."""
SEEDS = {"train": 0, "test": 1}
"""Seed of each part."""


class Shapes(Source):
    """The embedded data set, which needs no files and no downloads."""

    image_size = SIDE

    @classmethod
    def has_name(cls, name: str) -> bool:
        return name in NAMES

    @property
    def num_classes(self) -> int:
        return len(CLASSES)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(CLASSES)

    def has(self, split: str) -> bool:
        return split in IMAGES

    def load(self, split: str, image_size: int) -> ArrayImages:
        count, seed = IMAGES[split], SEEDS[split]
        pixels, labels = cached([source_of(draw_shapes), *CLASSES, count, seed], lambda: draw_shapes(count, seed))
        return ArrayImages(pixels, image_size, labels)
