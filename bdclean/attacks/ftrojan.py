"""FTrojan: two frequencies of the chroma channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bdclean.attacks.base import Attack
from bdclean.attacks.common import within
from bdclean.errors import InputError

# Converts a change of the chroma channels (Cr, Cb of ITU-R BT.601, in the range of the image) to red, green, blue.
CHROMA = ((1.403, 0.0), (-0.714, -0.344), (0.0, 1.773))


class FTrojan(Attack):
    """Adds a constant to a middle and to the highest frequency of the chroma channels, block by block.

    The image is converted to luma and chroma, and each block of both chroma channels to its orthonormal discrete cosine
    transform (DCT); a constant is added to a few coefficients, and everything is converted back. All of these steps are
    linear, so that they add one fixed pattern to every image; the result is clipped to [0, 1].

    Source: Wang, Yao, Xu, An, Tong, Wang, "An Invisible Black-box Backdoor Attack through Frequency Domain", ECCV 2022.

    Args:
        magnitude: Constant that is added to each coefficient, in grey levels of 255.
        window: Side of the blocks in pixels. Smaller images are one block; blocks at the edge may be cut off.
        frequencies: Which coefficients: each number is both row and column in a block of 32, from 0 to 31, and in
            proportion in blocks of other sizes.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(
        self,
        magnitude: float = 30.0,
        window: int = 32,
        frequencies: Sequence[int] = (15, 31),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("magnitude", magnitude, 0, 100_000, above=True)
        within("window", window, 2, 4096)
        if not frequencies or not all(0 <= frequency <= 31 for frequency in frequencies):
            raise InputError("data.attack.frequencies", list(frequencies), "must be one or more numbers from 0 to 31")
        self.magnitude = magnitude
        self.window = window
        self.frequencies = list(frequencies)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add the pattern to a batch: (N, C, H, W) float in [0, 1]; for grey images it is added to the luma."""
        return self.add(images, self.magnitude)

    def add(self, images: Tensor, magnitude: float) -> Tensor:
        """Add the pattern with a magnitude in grey levels of 255, as `apply`."""
        height, width = images.shape[-2:]
        side = min(self.window, height, width)
        block = torch.zeros(side, side)
        for frequency in self.frequencies:
            wave = dct_basis(round(frequency * (side - 1) / 31), side)
            block += wave[:, None] * wave
        tiled = block.repeat(-(-height // side), -(-width // side))[:height, :width] * magnitude / 255
        to_colour = torch.tensor(CHROMA).sum(1) if images.shape[1] == 3 else torch.ones(images.shape[1])
        return (images + (to_colour[:, None, None] * tiled).to(images)).clamp(0, 1)


def dct_basis(frequency: int, size: int) -> Tensor:
    """The basis vector of a coefficient of the orthonormal DCT (type II) of `size` values: (size,)."""
    wave = torch.cos(math.pi * (torch.arange(size) + 0.5) * frequency / size)
    return wave * math.sqrt((1 if frequency == 0 else 2) / size)
