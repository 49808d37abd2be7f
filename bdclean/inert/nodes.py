"""Descriptions of the content of PyTorch files, before objects of torch, numpy or Pillow are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MOST_SHARED = 4
"""Maximum ratio of a tensor's elements to its stored elements, for views with strides of 0."""
SLACK = 2**20
"""Bytes that a tensor may claim in addition."""
LARGEST_SIDE = 4096
"""Maximum side of a picture, in pixels."""
MOST_DIMENSIONS = 64
BANDS = {"L": 1, "P": 1, "RGB": 3, "RGBA": 4}
"""Bytes per pixel, for each supported mode of pictures."""
LARGEST_PALETTE = 1024
"""Maximum bytes of a palette: 256 colours of four bytes."""

ITEM_SIZES = {
    **dict.fromkeys(("bool", "uint8", "int8", "quint8", "qint8", "float8_e5m2", "float8_e4m3fn"), 1),
    **dict.fromkeys(("float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"), 1),
    **dict.fromkeys(("quint4x2", "quint2x4", "bits8", "bits1x8", "bits2x4", "bits4x2"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16", "bits16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32", "qint32", "complex32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
"""Bytes per element, by the name of the dtype in torch."""


class RefusedError(Exception):
    """The reason why a file is not read, in a few words."""


@dataclass(eq=False, slots=True)
class Name:
    """A global in a pickle. It is never imported."""

    full: str


@dataclass(eq=False, slots=True)
class Object:
    """A placeholder for an object of an unknown class, with its state, which is not used."""

    name: str
    state: Any = None


@dataclass(eq=False, slots=True)
class Storage:
    """A storage: the elements of tensors in the file.

    Attributes:
        key: Name of the storage in the file.
        dtype: Name of the elements' type; `uint8` if the file does not contain it.
        nbytes: Length in bytes.
        data: The bytes; None until they are found.
    """

    key: str
    dtype: str
    nbytes: int
    data: memoryview | None = None


@dataclass(eq=False, slots=True)
class Tensor:
    """A view of a storage, or a tensor without data on the device `meta`. Its bounds have been checked."""

    storage: Storage | None
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool = False
    parameter: bool = False

    def __post_init__(self) -> None:
        size = ITEM_SIZES.get(self.dtype)
        if size is None:
            raise RefusedError(f"a tensor of {self.dtype[:40]!r}")
        self.shape, self.stride = integers(self.shape), integers(self.stride)
        integers((self.offset,))
        if len(self.shape) != len(self.stride):
            raise RefusedError("a tensor whose shape and strides have different lengths")
        count = math.prod(self.shape)
        if self.storage is None:
            if count > 2**62 // size or any(length > 2**62 // size for length in self.stride):
                raise RefusedError(f"a tensor of shape {self.shape}")
            return
        stored = self.storage.nbytes // size
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) + 1
        if self.offset > stored or (count and reach > stored):
            raise RefusedError(f"a tensor of shape {self.shape} that exceeds the {stored} numbers stored for it")
        if count * size > MOST_SHARED * self.storage.nbytes + SLACK:
            raise RefusedError(f"a tensor of shape {self.shape} which claims more numbers than it has ({stored})")


@dataclass(eq=False, slots=True)
class Quantized:
    """A quantised tensor: its elements, the name of its scheme, and its scales and zero points."""

    tensor: Tensor
    scheme: str
    parameters: tuple[Any, ...]


@dataclass(eq=False, slots=True)
class Sparse:
    """A sparse tensor: the name of its layout, its indices and values, and its shape."""

    layout: str
    parts: tuple[Tensor, ...]
    shape: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Made:
    """A small value of torch, such as a `torch.device`: its name and arguments."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(eq=False, slots=True)
class Dtype:
    """A dtype of numpy, such as `f4`, and its byte order; not `plain` if it is neither of numbers nor of strings."""

    code: str
    plain: bool
    order: str = "="

    @property
    def itemsize(self) -> int:
        """Bytes per element; numpy's strings have four bytes per character."""
        return int(self.code[1:]) * (4 if self.code[0] == "U" else 1)


@dataclass(eq=False, slots=True)
class Array:
    """A numpy array; without bytes until its state is read, or if its dtype is not plain."""

    dtype: Dtype | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes = b""
    scalar: bool = False

    def fill(self, dtype: Any, shape: Any, fortran: Any, data: Any) -> None:
        """Set type, shape and elements.

        Raises:
            RefusedError: If the number of elements does not match the shape.
        """
        if type(dtype) is not Dtype:
            raise RefusedError("a numpy array without a type")
        self.dtype, self.shape, self.fortran = dtype, integers(shape), bool(fortran)
        if not dtype.plain:
            return
        if type(data) is not bytes or len(data) != math.prod(self.shape) * dtype.itemsize or len(self.shape) > 32:
            raise RefusedError("a numpy array whose shape does not match its data")
        self.data = data


@dataclass(eq=False, slots=True)
class Picture:
    """A Pillow image; without a mode until its state is read."""

    mode: str = ""
    size: tuple[int, int] = (0, 0)
    palette: bytes | None = None
    data: bytes = b""

    def fill(self, state: Any) -> None:
        """Set mode, size, palette and pixels, from the state (information, mode, size, palette, pixels).

        Raises:
            RefusedError: If the number of pixels does not match the size.
        """
        if not isinstance(state, (list, tuple)) or len(state) < 5:
            raise RefusedError("a picture without pixels")
        mode, size, palette, data = state[1:5]
        if not isinstance(mode, str) or mode not in BANDS:
            raise RefusedError(f"a picture of mode {str(mode)[:20]!r}")
        width, height = integers(size) if len(size) == 2 else (0, 0)
        inside = 0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE
        if not inside or type(data) is not bytes or len(data) != width * height * BANDS[mode]:
            raise RefusedError("a picture whose size does not match its pixels")
        if palette is not None:
            palette = bytes(integers(palette, LARGEST_PALETTE)) if isinstance(palette, (list, tuple)) else palette
            if type(palette) is not bytes or len(palette) > LARGEST_PALETTE:
                raise RefusedError("a picture with an invalid palette")
        self.mode, self.size, self.palette, self.data = mode, (width, height), palette, data


def integers(values: Any, most: int = MOST_DIMENSIONS) -> tuple[int, ...]:
    """Check lengths or strides: non-negative integers of 64 bits.

    Args:
        values: The values to check.
        most: Maximum number of values.

    Raises:
        RefusedError: If they are of another kind, or too many.
    """
    if not isinstance(values, (tuple, list)) or len(values) > most:
        raise RefusedError("an invalid shape")
    if not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise RefusedError("a shape with values that are not whole numbers")
    return tuple(values)
