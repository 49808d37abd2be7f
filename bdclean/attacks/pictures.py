"""Pictures that triggers are made of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bdclean import InputError


def read_picture(path: str, names: tuple[str, ...], size: tuple[int, int] | None = None) -> Tensor:
    """Read an image file.

    Args:
        path: The file.
        names: What the option takes instead of a file, for the message.
        size: Height and width that it is scaled to, in pixels; by default it keeps its own.

    Returns:
        (4, H, W) red, green, blue and opacity, in [0, 1].

    Raises:
        InputError: If there is no such file, or it is no image.
    """
    if not Path(path).is_file():
        raise InputError(f"--data.attack.trigger {path}: neither a file nor one of {', '.join(names)}")
    try:
        with Image.open(path, formats=("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")) as file:
            picture = transforms.pil_to_tensor(file.convert("RGBA")).float() / 255
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"--data.attack.trigger {path}: not a readable image ({error})") from error
    return picture if size is None else transforms.resize(picture, [*size], antialias=True)


def as_channels(picture: Tensor, images: Tensor) -> Tensor:
    """(3, H, W) colours with as many channels as a batch of images has, on its device: grey images get grey ones."""
    colour = picture.to(images)
    return colour.mean(0, keepdim=True) if images.shape[1] == 1 else colour


def corners(images: Tensor, side: int, margin: int) -> tuple[tuple[int, int], ...]:
    """Where square patches in the four corners of images begin: rows and columns, in pixels.

    Args:
        images: (N, C, H, W).
        side: Of the patches, in pixels.
        margin: Pixels between the patches and the image's edges.

    Returns:
        The corners bottom right, top left, top right, bottom left.

    Raises:
        InputError: If the patches overlap.
    """
    height, width = images.shape[-2:]
    if 2 * (side + margin) > min(height, width):
        raise InputError(
            f"--data.attack.size {side} --data.attack.margin {margin}: four patches do not fit into an image of "
            f"{height}x{width}"
        )
    bottom, right = height - margin - side, width - margin - side
    return (bottom, right), (margin, margin), (margin, right), (bottom, margin)
