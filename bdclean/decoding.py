"""One image file into pixels, in bounded memory: a few bytes can claim gigabytes.

What decoding takes is bounded over all worker processes together. Half of `MEMORY` is shared out evenly among the
workers. An image that needs more than a worker's share waits until no other such image is being decoded, and gets the
other half; an image that needs more than that is refused. The need is estimated from the image's header before anything
is decoded, and where the operating system can, the process is held to it: a header may lie.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock
from PIL import AvifImagePlugin, Image, ImageOps, UnidentifiedImageError, _imaging
from torch import Tensor
from torch.utils.data import get_worker_info

from bdclean import first_line

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Image.init()
# What Pillow may take a file for: all it reads by itself. EPS starts Ghostscript, the others only name a file's format.
_OTHERS = sorted({*Image.OPEN} - {"JPEG", "PNG", "EPS", "BUFR", "EMF", "GRIB", "HDF5", "MPEG", "WMF"})
# In the order in which Pillow tries them, for every image.
FORMATS = ("JPEG", "PNG", *_OTHERS)
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
MOST_PIXELS = 100_000_000
"""A larger image is not decoded."""
MEMORY = 2**31
"""Bytes that decoding takes at most, over all workers together."""
MOST_BYTES = MEMORY // 2
"""Bytes that decoding one image takes at most."""
KEPT = 2**25
"""Bytes that a worker may keep for its next image; what a larger image took is given back to the system."""
USUAL_WORKERS = 8
"""Workers among which memory is shared out, if there are not more of them."""
BYTES_PER_PIXEL = {"AVIF": 14, "ICNS": 28, "JPEG2000": 28, "TIFF": 20, "WEBP": 18}
"""What decoders take, measured with Pillow 13 and rounded up; every other format takes `USUAL_BYTES`."""
USUAL_BYTES = 9
DEEP_BYTES = 20
"""Bytes per pixel of an image of 16 or 32 bits, which is scaled to 8."""
PROGRESSIVE_BYTES = 9
"""Bytes per pixel of a progressive JPEG, however small it is decoded."""
HEADER_SECONDS = 0.5
"""Computing time that it may take to read the header of an image."""
READS = 1024
"""Reads after which the time is looked at; the header of an image of today takes some tens."""
# The stack of each thread counts as memory, and there are as many workers as cores already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# An image is judged by whether it can be decoded, not by what Pillow thinks of it.
warnings.filterwarnings("ignore", module="PIL")
with suppress(AttributeError, OSError):
    # libtiff would print what it thinks of a file on standard error. Where it is a part of Pillow it stays so.
    _libtiff = ctypes.CDLL(_imaging.__file__)
    _libtiff.TIFFSetErrorHandler(None)
    _libtiff.TIFFSetWarningHandler(None)
_STATUS = "/proc/self/statm"
_PAGE = resource.getpagesize() if resource else 0
_LIMIT = resource.getrlimit(resource.RLIMIT_DATA) if resource and os.path.exists(_STATUS) else None
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
Result = TypeVar("Result")


class RefusedError(ValueError):
    """An image that is not decoded however much memory there is."""


class _File(io.BufferedReader):
    """A file that cannot keep Pillow busy without end before it is opened: it reads comments bit by bit."""

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


def decode(path: Path, size: int, most: int = MOST_BYTES) -> Tensor | str:
    """Decode an image file, cut to the square in its centre and resized.

    Args:
        path: The file, of any format that Pillow reads.
        size: Height and width of the result, in pixels.
        most: Bytes that decoding may take.

    Returns:
        (size, size, 3) uint8, or the reason why there is none.
    """
    try:
        return bounded(path, lambda image: square(image, size), size=size, most=most)
    except Exception as error:  # Pillow's decoders fail in any way
        return first_line(error)


def bounded(
    path: Path,
    read: Callable[[Image.Image], Result],
    formats: tuple[str, ...] = FORMATS,
    size: int | None = None,
    most: int = MOST_BYTES,
) -> Result:
    """Open an image file, and read it in bounded memory.

    Args:
        path: The file.
        read: From the opened image, of which nothing has been decoded, to the result.
        formats: What Pillow may take the file for.
        size: Height and width in pixels that are enough: a JPEG is decoded at the fraction of its size that is closest.
        most: Bytes that decoding may take.

    Raises:
        MemoryError: If that takes more than `most`.
        Exception: What Pillow and `read` raise.
    """
    worker = get_worker_info()
    share = most // max(USUAL_WORKERS, worker.num_workers if worker else 0)
    try:
        with _held_to(share):
            return _read(path, read, formats, size, share)
    except RefusedError:
        raise
    except Exception:  # decoders that get no memory say so in many ways
        _give_back()
    try:
        with FileLock(_lock(), poll_interval=0.01), _held_to(most):
            return _read(path, read, formats, size, most)
    except MemoryError as error:
        # What the system raises has no text.
        raise MemoryError(str(error) or f"takes more than {most // 2**20} MiB to decode") from error


def _read(
    path: Path, read: Callable[[Image.Image], Result], formats: tuple[str, ...], size: int | None, most: int
) -> Result:
    with _File(io.FileIO(path)) as file:
        # Several of Pillow's decoders read the file whole.
        if 2 * (length := os.fstat(file.fileno()).st_size) > most:
            raise MemoryError(f"the file has {length // 2**20} MiB")
        try:
            opened = Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            raise ValueError("of no known format") from error
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
        _give_back()
    return result


def _lock() -> Path:
    """A file that is locked while a large image is decoded: by one process of this user at a time."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir(), f"bdclean-{user}-decoding.lock")


def _give_back() -> None:
    """Give memory that is free back to the system: the command line has the allocator keep it, in each worker."""
    if _trim is not None:
        _trim(0)


def _needed(image: Image.Image, in_file: int) -> int:
    """About how many bytes it takes to decode an image that has so many pixels in its file."""
    per_pixel = DEEP_BYTES if image.mode.startswith(("I", "F")) else USUAL_BYTES
    stored = in_file * PROGRESSIVE_BYTES if {"progressive", "progression"} & image.info.keys() else 0
    return stored + math.prod(image.size) * max(per_pixel, BYTES_PER_PIXEL.get(image.format or "", 0))


@contextmanager
def _held_to(most: int) -> Iterator[None]:
    """Within it, this process may take so many bytes more than it has; on Linux alone."""
    if _LIMIT is None:
        yield
        return
    # Twice as fast as a file object, for every image.
    status = os.open(_STATUS, os.O_RDONLY)
    has = int(os.read(status, 200).split()[5]) * _PAGE
    os.close(status)
    soft, hard = _LIMIT
    allowed = has + most if soft == resource.RLIM_INFINITY else min(has + most, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, _LIMIT)


def square(image: Image.Image, size: int) -> Tensor:
    """The centre of an image as RGB, resized, (size, size, 3) uint8. The image is turned as its camera was held."""
    ImageOps.exif_transpose(image, in_place=True)
    image = in_8_bits(image)
    colour = image if image.mode == "RGB" else image.convert("RGB")
    side = min(colour.size)
    left, top = (colour.width - side) / 2, (colour.height - side) / 2
    box = (left, top, left + side, top + side)
    return torch.from_numpy(np.array(colour.resize((size, size), Image.Resampling.BILINEAR, box)))


def in_8_bits(image: Image.Image) -> Image.Image:
    """Scale an image of 16 or 32 bits, of which Pillow would cut everything off above 255; others stay as they are.

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
