"""How many images go through a network at once."""

from __future__ import annotations

from torch import Tensor

BATCH, BATCH_PIXELS, SMALLEST_BATCH = 128, 128 * 64**2, 8
"""Images a step; how many pixels of them go through a network at once; at least so many images."""

LARGEST_SIDE = 8192
"""Height and width of the largest images, in pixels: one alone takes 800 MB in single precision."""


def at_once(pixels: int) -> int:
    """How many images of so many pixels go through a network at once."""
    return min(BATCH, max(SMALLEST_BATCH, BATCH_PIXELS // pixels))


def batch_size(images: Tensor) -> int:
    """How many images like these, (N, C, H, W), are worked on at once."""
    return at_once(images.shape[-1] * images.shape[-2])


def pieces(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Values (N, ...) in parts of almost equal length, of at most `size`."""
    return values.tensor_split(-(-len(values) // size))
