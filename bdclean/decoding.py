"""Decoding image files in bounded memory: a file of a few bytes can claim gigabytes.

All worker processes together use at most `MEMORY`. Half of it is divided evenly among the workers. An image that needs
more than a worker's share waits until no other such image is being decoded, and gets the other half; an image that
needs more than that is refused. The need is estimated from the image's header before decoding. Because a header may
lie, the process is also limited to it where the operating system can do so.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock
from PIL import AvifImagePlugin, Image, ImageOps, UnidentifiedImageError, _imaging
from torch import Tensor
from torch.utils.data import get_worker_info

from bdclean import first_line
from bdclean.process_memory import limited, return_free
from bdclean.resizing import Resize

Image.init()
# All formats that Pillow decodes itself. EPS starts Ghostscript; for the other excluded formats Pillow has no decoder.
_OTHERS = sorted({*Image.OPEN} - {"JPEG", "PNG", "EPS", "BUFR", "EMF", "GRIB", "HDF5", "MPEG", "WMF"})
# Pillow tries the formats in this order, so the most frequent come first.
FORMATS = ("JPEG", "PNG", *_OTHERS)
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
MOST_PIXELS = 100_000_000
"""Pixels above which an image is not decoded."""
MEMORY = 2**31
"""Maximum bytes for decoding, of all workers together."""
MOST_BYTES = MEMORY // 2
"""Maximum bytes for decoding one image."""
KEPT = 2**25
"""Bytes that a worker keeps for its next image; the memory of a larger image is returned to the system."""
USUAL_WORKERS = 8
"""Minimum number of workers among which memory is divided."""
BYTES_PER_PIXEL = {"AVIF": 14, "ICNS": 28, "JPEG2000": 28, "TIFF": 20, "WEBP": 18}
"""Bytes per pixel of a decoder, measured with Pillow 13 and rounded up; other formats take `USUAL_BYTES`."""
USUAL_BYTES = 9
DEEP_BYTES = 20
"""Bytes per pixel of an image of 16 or 32 bits, which is scaled to 8 bits."""
PROGRESSIVE_BYTES = 9
"""Bytes per pixel of a progressive JPEG, even if it is decoded at a smaller size."""
HEADER_SECONDS = 0.5
"""Maximum CPU time for reading the header of an image."""
READS = 1024
"""Reads between checks of the time; the header of a typical image takes some tens of reads."""
# The stack of each thread counts towards the limit, and the workers use all cores already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# An image that can be decoded is accepted in spite of Pillow's warnings.
warnings.filterwarnings("ignore", module="PIL")
with suppress(AttributeError, OSError):
    # libtiff prints warnings on standard error. If it is linked statically into Pillow, they cannot be disabled.
    _libtiff = ctypes.CDLL(_imaging.__file__)
    _libtiff.TIFFSetErrorHandler(None)
    _libtiff.TIFFSetWarningHandler(None)
Result = TypeVar("Result")


class RefusedError(ValueError):
    """An image that is not decoded, regardless of the available memory."""


class _File(io.BufferedReader):
    """A file that limits the time for reading an image's header: Pillow reads comments in small pieces, without end."""

    opened = False
    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads % READS == 0 and not self.opened:
            if self.reads == READS:
                self.began = time.process_time()
            elif time.process_time() - self.began > HEADER_SECONDS:
                raise RefusedError(f"its header takes longer than {HEADER_SECONDS:g} s to read")
        return super().read(size)


def decode(path: Path, size: int, resize: Resize | None = None, most: int = MOST_BYTES) -> Tensor | str:
    """Decode an image file into a square image.

    Args:
        path: A file of any format in `FORMATS`.
        size: Height and width of the result, in pixels.
        resize: Resizing of the image, as in `square`.
        most: Maximum memory to decode one image, in bytes.

    Returns:
        (size, size, 3) uint8, or the reason why the image cannot be decoded.
    """
    try:
        enough = size if resize is None else resize.sufficient
        return bounded(path, lambda image: square(image, size, resize), size=enough, most=most)
    except Exception as error:  # Pillow's decoders fail in any way
        return first_line(error)


def bounded(
    path: Path,
    read: Callable[[Image.Image], Result],
    formats: tuple[str, ...] = FORMATS,
    size: int | None = None,
    most: int = MOST_BYTES,
) -> Result:
    """Open an image file and read it in bounded memory.

    Args:
        path: The file.
        read: Maps the opened image, which is not decoded yet, to the result.
        formats: Formats that Pillow tries.
        size: Height and width in pixels that suffice: a JPEG is decoded at the closest fraction of its size.
        most: Maximum memory to decode one image, in bytes.

    Raises:
        MemoryError: If this takes more than `most`.
        Exception: Any error of Pillow or `read`.
    """
    worker = get_worker_info()
    share = most // max(USUAL_WORKERS, worker.num_workers if worker else 0)
    try:
        with limited(share):
            return _read(path, read, formats, size, share)
    except RefusedError:
        raise
    except Exception:  # decoders raise different errors when they run out of memory
        return_free()
    try:
        with FileLock(_lock(), poll_interval=0.01), limited(most):
            return _read(path, read, formats, size, most)
    except MemoryError as error:
        # A MemoryError that Python raises has no text.
        raise MemoryError(str(error) or f"takes more than {most // 2**20} MiB to decode") from error


def _read(
    path: Path, read: Callable[[Image.Image], Result], formats: tuple[str, ...], size: int | None, most: int
) -> Result:
    with _File(io.FileIO(path)) as file:
        # Several of Pillow's decoders read the whole file.
        if 2 * (length := os.fstat(file.fileno()).st_size) > most:
            raise MemoryError(f"the file has {length // 2**20} MiB")
        try:
            opened = Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            raise ValueError("unknown format") from error
        file.opened = True
        with opened as image:
            pixels = math.prod(image.size)
            if size is not None:
                image.draft("RGB", (size, size))
            if math.prod(image.size) > MOST_PIXELS:
                raise RefusedError(f"{image.width}x{image.height} pixels are too many")
            if (needed := _needed(image, pixels)) > most:
                raise MemoryError(f"{image.width}x{image.height} pixels take {needed // 2**20} MiB to decode")
            result = read(image)
    if needed > KEPT:
        del image, opened
        return_free()
    return result


def _lock() -> Path:
    """The lock file for decoding large images, one process of this user at a time."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir(), f"bdclean-{user}-decoding.lock")


def _needed(image: Image.Image, file_pixels: int) -> int:
    """Estimate the bytes for decoding an image with `file_pixels` pixels in its file."""
    per_pixel = DEEP_BYTES if image.mode.startswith(("I", "F")) else USUAL_BYTES
    stored = file_pixels * PROGRESSIVE_BYTES if {"progressive", "progression"} & image.info.keys() else 0
    return stored + math.prod(image.size) * max(per_pixel, BYTES_PER_PIXEL.get(image.format or "", 0))


def square(image: Image.Image, size: int, resize: Resize | None = None) -> Tensor:
    """Make an image square, as RGB, (size, size, 3) uint8. EXIF orientation is applied in place.

    Args:
        image: The image.
        size: Height and width of the result, in pixels.
        resize: How the image is resized before its centre is cropped; by default its largest central square is resized.
    """
    ImageOps.exif_transpose(image, in_place=True)
    image = in_8_bits(image)
    colour = image if image.mode == "RGB" else image.convert("RGB")
    if resize is not None:
        return resize.picture(colour, size)
    side = min(colour.size)
    left, top = (colour.width - side) / 2, (colour.height - side) / 2
    box = (left, top, left + side, top + side)
    return torch.from_numpy(np.array(colour.resize((size, size), Image.Resampling.BILINEAR, box)))


def in_8_bits(image: Image.Image) -> Image.Image:
    """Scale an image of 16 or 32 bits, which Pillow would clip at 255, to 8 bits; other images are returned unchanged.

    Raises:
        ValueError: If its pixels are not finite.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float32)
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(values.min()), float(values.max()))
    if not high - low <= float(np.finfo(np.float32).max):
        raise ValueError("its pixels are not finite, or too far apart")
    values -= low
    values *= 255 / max(high - low, 1e-9)
    return Image.fromarray(values.astype(np.uint8))
