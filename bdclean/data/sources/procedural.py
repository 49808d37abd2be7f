"""Unlabeled images that the program draws."""

from __future__ import annotations

from bdclean.data.images import MemoryImages
from bdclean.data.procedural import draw_procedural
from bdclean.data.sources.base import Source

NAMES = ("procedural",)


class Procedural(Source):
    """Unlabeled images of any number and size."""

    @classmethod
    def has_name(cls, name: str) -> bool:
        return name in NAMES

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> MemoryImages:
        return MemoryImages(draw_procedural(count, image_size, seed))
