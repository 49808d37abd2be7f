"""Reading and placing pictures that triggers are made of."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bdclean import first_line
from bdclean.decoding import RefusedError, bounded, in_8_bits
from bdclean.errors import Given, InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MAX_PIXELS = 16_000_000
"""Pixels of the largest picture: as floats, it takes 16 bytes per pixel."""


def read_picture(path: str, names: tuple[str, ...], size: tuple[int, int] | None = None) -> Tensor:
    """Read an image file.

    Args:
        path: The file.
        names: Values that the option allows instead of a file, for the message.
        size: Height and width to which it is resized, in pixels; by default it is not resized.

    Returns:
        (4, H, W): red, green, blue and opacity, in [0, 1].

    Raises:
        InputError: If the file does not exist, is not an image, or is too large.
    """
    if not os.path.isfile(path):
        raise InputError("data.attack.trigger", path, f"neither a file nor one of {', '.join(names)}")
    try:
        image = bounded(Path(path), _with_opacity, FORMATS)
    except Exception as error:  # Pillow's decoders can raise any error
        raise InputError("data.attack.trigger", path, f"not a readable image ({first_line(error)})") from error
    picture = transforms.pil_to_tensor(image).float() / 255
    return picture if size is None else transforms.resize(picture, [*size], antialias=True)


def _with_opacity(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise RefusedError(f"{image.width}x{image.height} pixels are too many")
    return in_8_bits(image).convert("RGBA")


def as_channels(picture: Tensor, images: Tensor) -> Tensor:
    """Convert (3, H, W) colours to the channels and the device of a batch of images: for grey images, to grey."""
    colour = picture.to(images)
    return colour.mean(0, keepdim=True) if images.shape[1] == 1 else colour


def corners(images: Tensor, side: int, margin: int) -> tuple[tuple[int, int], ...]:
    """The top left pixels (row, column) of square patches in the four corners of images.

    Args:
        images: (N, C, H, W).
        side: Side of the patches, in pixels.
        margin: Pixels between the patches and the image's edges.

    Returns:
        The corners bottom right, top left, top right, bottom left.

    Raises:
        InputError: If the patches overlap.
    """
    height, width = images.shape[-2:]
    if 2 * (side + margin) > min(height, width):
        raise InputError(
            "data.attack.size",
            side,
            f"four patches do not fit into an image of {height}x{width}",
            Given("data.attack.margin", margin),
        )
    bottom, right = height - margin - side, width - margin - side
    return (bottom, right), (margin, margin), (margin, right), (bottom, margin)
