"""Images in `.npz` and `.npy` files, whose headers are checked before any array is read."""

from __future__ import annotations

import math
import os
import weakref
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from bdclean import first_ten
from bdclean.data.cache import cached, identity
from bdclean.errors import Given, InputError

ONLY = "the array"
"""Name of the single array of an `.npy` file in messages."""
MAGIC = np.lib.format.MAGIC_PREFIX
ALWAYS = 2**28
"""Size in memory, in bytes, that any array may have, however small it is in the file."""
PACKED = 100
"""Maximum compression ratio of a larger array; images hardly compress."""
MOST_CLASSES = 100_000
"""Upper bound of class numbers: a network has a row of weights for each."""
MOST_CHARACTERS = 2**20
"""Maximum length of a text in an array."""
TRAIN = (("x_train", "y_train"), ("images", "labels"), ("data", "targets"))
PARTS = {"train": TRAIN, "test": (("x_test", "y_test"), ("test_images", "test_labels"))}
"""Names of the images and labels of each part, in order of preference."""


@dataclass(frozen=True)
class Header:
    """Header of an array in a file.

    Attributes:
        shape: Shape of the array.
        dtype: Type of its elements.
        length: Size in the file, in bytes.
        member: Its member of the `.npz` file; None for an `.npy` file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    length: int
    member: zipfile.ZipInfo | None

    @property
    def most(self) -> int:
        """Maximum size in memory that is accepted, in bytes."""
        stored = self.member is None or self.member.compress_type == zipfile.ZIP_STORED
        return self.length if stored else max(ALWAYS, PACKED * self.length)

    @property
    def size(self) -> int:
        """Size in memory, in bytes, according to the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_arrays(path: Path, option: Given) -> ArrayFile:
    """Open a file as `ArrayFile`, or return it from a cache if the file has not changed."""
    return _opened(path, option, identity(path))


@lru_cache(maxsize=4)
def _opened(path: Path, option: Given, _: object) -> ArrayFile:
    return ArrayFile(path, option)


class ArrayFile:
    """The arrays of an `.npz` or `.npy` file.

    Args:
        path: The file.
        option: The parameter that named it, for messages.

    Raises:
        InputError: If the file holds no arrays.
    """

    def __init__(self, path: Path, option: Given) -> None:
        self.path = path
        self.option = option
        self._files: dict[int, IO[bytes]] = {}
        """The file as opened by each process, by process ID: forked processes must not share a file position."""
        try:
            self.headers = self._headers()
        except Exception as error:  # a damaged archive can fail in any way
            raise InputError(*option, f"not a readable file of arrays ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_files": {}}

    def _file(self) -> IO[bytes]:
        process = os.getpid()
        if process not in self._files:
            self._files[process] = file = open(self.path, "rb")  # noqa: SIM115  # it stays open
            weakref.finalize(self, file.close)
        self._files[process].seek(0)
        return self._files[process]

    def _headers(self) -> dict[str, Header]:
        file = self._file()
        if file.read(len(MAGIC)) == MAGIC:
            file.seek(0)
            return {ONLY: Header(*_shape_and_type(file), os.fstat(file.fileno()).st_size, None)}
        headers = {}
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as content:
                        header = Header(*_shape_and_type(content), member.compress_size, member)
                    headers[member.filename.removesuffix(".npy")] = header
        return headers

    def has(self, split: str) -> bool:
        """Whether there is a `train` or `test` part with labels."""
        return any({*pair} <= self.headers.keys() for pair in PARTS[split])

    def names(self, split: str) -> tuple[str, str]:
        """Names of the images and the labels of a part; the usual ones if it is missing."""
        return next((pair for pair in PARTS[split] if {*pair} <= self.headers.keys()), PARTS[split][0])

    def classes(self, split: str) -> frozenset[int]:
        """The classes of a part's images."""
        key = self.names(split)[1]
        return frozenset(np.unique(self.labels(key)).tolist()) if key in self.headers else frozenset()

    def part(self, split: str) -> tuple[Tensor, Tensor]:
        """The images and labels of a part, as in `pixels` and `labels`."""
        return self.pair(*self.names(split))

    def pair(self, images: str, labels: str) -> tuple[Tensor, Tensor]:
        """The images and labels with these names, as in `pixels` and `labels`."""
        headers = [self._header(name) for name in (images, labels)]
        checksums = [header.member.CRC for header in headers if header.member is not None]
        return cached([identity(self.path), checksums], lambda: self._pair(images, labels))

    def _pair(self, images: str, labels: str) -> tuple[Tensor, Tensor]:
        pixels, classes = self.pixels(images), self.labels(labels)
        if len(pixels) != len(classes):
            raise InputError(*self.option, f"{len(pixels)} images in {images}, {len(classes)} labels in {labels}")
        return pixels, classes

    @property
    def unlabeled(self) -> str:
        """The name of the array with unlabeled images."""
        known = [name for name in ("x_train", "x_test", "x", "images", "data") if name in self.headers]
        if not known and len(self.headers) != 1:
            raise InputError(
                *self.option, f"has neither x_train nor x_test, but {first_ten(sorted(self.headers)) or 'nothing'}"
            )
        return known[0] if known else next(iter(self.headers))

    @property
    def image_size(self) -> int:
        """Height of the images, in pixels."""
        # The test part is usually smaller.
        return self._shape("x_test" if "x_test" in self.headers else self.unlabeled)[1]

    def labels(self, key: str) -> Tensor:
        """(N,) int64 class numbers."""
        return self.integers(key, MOST_CLASSES, "class numbers")

    def integers(self, key: str, limit: int, what: str) -> Tensor:
        """(N,) int64 from 0 to below a limit, which may be stored as floats; `what` describes them in messages."""
        header = self._header(key)
        if len(header.shape) != 1 or header.dtype.kind not in "iuf":
            raise self._wrong(key, f"must hold {what}")
        numbers = self._read(key)
        # Negated, so that NaN is refused too.
        wrong = numbers[~((numbers >= 0) & (numbers < limit) & (numbers == np.round(numbers)))]
        if wrong.size:
            raise InputError(*self.option, f"{key} must hold {what}, not {wrong[0]}")
        return torch.from_numpy(numbers.astype(np.int64))

    def text(self, key: str) -> str:
        """A text; empty if there is none with this name."""
        header = self.headers.get(key)
        if header is None or header.dtype.kind != "U" or header.shape or header.dtype.itemsize > 4 * MOST_CHARACTERS:
            return ""
        return str(self._read(key))

    def pixels(self, key: str) -> Tensor:
        """(N, H, W, 1 or 3) uint8."""
        self._shape(key)
        array = self._read(key)
        pixels = array[..., None] if array.ndim == 3 else array
        if pixels.shape[-1] not in (1, 3):
            pixels = pixels.transpose(0, 2, 3, 1)
        if pixels.dtype != np.uint8:
            low, high = pixels.min(), pixels.max()
            # Negated, so that NaN is refused too.
            if not (low >= 0 and high <= 1):
                raise InputError(
                    *self.option, f"{key} must be uint8 or in [0, 1], not {pixels.dtype} from {low:g} to {high:g}"
                )
            pixels = np.round(pixels * 255).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(pixels))

    def _header(self, key: str) -> Header:
        if key not in self.headers:
            raise InputError(*self.option, f"has no array {key}, but {first_ten(sorted(self.headers))}")
        if self.headers[key].dtype.hasobject:
            raise InputError(*self.option, f"array {key} cannot be read (it holds Python objects)")
        return self.headers[key]

    def _wrong(self, key: str, wanted: str) -> InputError:
        header = self.headers[key]
        return InputError(*self.option, f"{key} {wanted}, not {header.dtype} {header.shape}")

    def _shape(self, key: str) -> tuple[int, int, int]:
        """Number, height and width of the images, if the array can hold images."""
        header = self._header(key)
        shape = (*header.shape, 1) if len(header.shape) == 3 else header.shape
        if len(shape) == 4 and shape[-1] not in (1, 3) and shape[1] in (1, 3):
            shape = (shape[0], *shape[2:], shape[1])
        plain = header.dtype == np.uint8 or np.issubdtype(header.dtype, np.floating)
        if not plain or len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape:
            raise self._wrong(key, "must be (N, H, W, 3), uint8 or in [0, 1]")
        return shape[:3]

    def _read(self, key: str) -> np.ndarray:
        header = self._header(key)
        if header.size > header.most:
            raise InputError(
                *self.option,
                f"{key} claims {header.size / 1e9:.2f} GB in memory, of {header.length / 1e6:.1f} MB in the file",
            )
        try:
            if header.member is None:
                return np.lib.format.read_array(self._file(), allow_pickle=False)
            with zipfile.ZipFile(self._file()) as archive, archive.open(header.member) as content:
                return np.lib.format.read_array(content, allow_pickle=False)
        except Exception as error:  # a damaged archive can fail in any way
            raise InputError(*self.option, f"array {key} cannot be read ({error})") from error


def _shape_and_type(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
