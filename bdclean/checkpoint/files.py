"""From a file that nobody should trust to tensors and plain values, without running anything in it.

PyTorch's `weights_only` unpickler makes the objects. Before it starts, the file's size, its globals and what they could
grow into are looked at; what numpy and Pillow would make of their own pickles is made by stand-ins that check it.
"""

from __future__ import annotations

import encodings.aliases
import logging
import math
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from bdclean import InputError, first_line

LARGEST_PICTURE = 4096

_CODECS = {"hex_codec", "base64_codec", "uu_codec", "quopri_codec", "zlib_codec", "bz2_codec"}
_GROWING = _CODECS | {alias for alias, codec in encodings.aliases.aliases.items() if codec in _CODECS}
"""Encodings of bytes as bytes: applied to their own results they fill any memory."""


class _Dtype:
    """Stands in for numpy.dtype: numbers of a fixed size, and nothing else."""

    def __init__(self, name: str, *_: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", name):
            raise ValueError(f"numpy array of {str(name)[:20]!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1] if state[1] in ("<", ">") else "=")


class _Array(np.ndarray[Any, Any]):
    """Stands in for numpy.ndarray: its bytes have to be as many as its shape says."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Dtype or type(data) is not bytes or len(data) != math.prod(shape) * dtype.value.itemsize:
            raise ValueError("numpy array whose size is not that of its numbers")
        super().__setstate__((1, tuple(shape), dtype.value, bool(fortran), data))  # type: ignore[arg-type]  # numpy has it too narrow

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


class _Picture(Image.Image):
    """Stands in for Pillow's images."""

    def __setstate__(self, state: Any) -> None:
        _, mode, size, palette, data = state[:5]
        width, height = size
        bands = {"L": 1, "P": 1, "RGB": 3, "RGBA": 4}[mode]
        if not (0 < width <= LARGEST_PICTURE and 0 < height <= LARGEST_PICTURE and len(data) == width * height * bands):
            raise ValueError("picture whose size is not that of its pixels")
        super().__setstate__([{}, mode, (width, height), palette, data])

    def __reduce__(self) -> Any:
        return Image.Image, (), self.__getstate__()


def _empty_array(*_: object) -> _Array:
    return _Array(0)


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    if type(dtype) is not _Dtype or len(data) != dtype.value.itemsize:
        raise ValueError("numpy scalar whose size is not that of its number")
    return np.frombuffer(data, dtype.value)[0]


_STAND_INS: dict[str, Any] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    "PIL.Image.Image": _Picture,
    "PIL.PngImagePlugin.PngImageFile": _Picture,
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}
_PLAIN = {
    "collections.OrderedDict",
    "collections.Counter",
    "builtins.set",
    "builtins.complex",
    "_codecs.encode",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    *(
        f"torch._utils.{name}"
        for name in (
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_sparse_tensor",
            "_rebuild_qtensor",
            "_rebuild_meta_tensor_no_storage",
        )
    ),
}
_TORCH_NUMBERS = re.compile(r"torch\.(storage\.)?(\w+Storage|b?float\w+|u?int\d+|bool|half|double|long|per_\w+|q\w+)")


def load(path: str, option: str) -> Any:
    """Read a file of tensors and plain values.

    Args:
        path: The file: PyTorch's format of today or of old, or safetensors.
        option: The option that named it with its value, for messages.

    Raises:
        InputError: If the file is missing or damaged, would need code to be run, or claims more than it holds.
    """
    if not Path(path).is_file():
        raise InputError(f"{option}: no such file")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        blocked = _inspect(path, option)
        if not blocked:
            with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside torch, in any way
        logging.getLogger(__name__).debug("%s", option, exc_info=True)
        reason = first_line(error)
        if "weights_only" in reason:
            # PyTorch goes on with the advice to load it in the unsafe way.
            reason = "its pickle is not that of plain data"
        raise InputError(f"{option}: not a readable checkpoint ({reason[:200]})") from error
    raise InputError(
        f"{option}: refused, it would run code on loading: {', '.join(blocked[:10])}. Convert it where it can do no "
        "harm, in a container without network: model = torch.load(FILE, weights_only=False), then "
        "torch.save(model.state_dict(), 'plain.pt'), with the network's place in the file if it holds more"
    )


def _inspect(path: str, option: str) -> list[str]:
    """What the pickles in a file want to import that is not plain data, found by reading their code, not running it."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            if file.seek(0) == 0 and file.read(2) == b"PK":
                raise InputError(f"{option}: not a readable checkpoint (it is cut off)")
            return _blocked(_legacy_pickles(file))
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > Path(path).stat().st_size:
            # PyTorch never compresses.
            raise InputError(f"{option}: refused, it unpacks to {unpacked} bytes, more than the file has")
        pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
        if any(name.endswith("constants.pkl") for name in pickles):
            raise InputError(f"{option}: refused, it is a TorchScript program, not weights: save its state_dict()")
        return _blocked(archive.read(name) for name in pickles)


def _legacy_pickles(file: BinaryIO) -> list[bytes]:
    """The pickles before the numbers, in the format of PyTorch before 1.6: magic number, protocol, system, the data."""
    file.seek(0)
    pickles = []
    for _ in range(4):
        start = file.tell()
        for _ in pickletools.genops(file):
            pass
        end = file.tell()
        file.seek(start)
        pickles.append(file.read(end - start))
    return pickles


def _blocked(pickles: Any) -> list[str]:
    found: set[str] = set()
    for code in pickles:
        texts: list[str] = []
        used: set[str] = set()
        for operation, argument, _ in pickletools.genops(code):
            if operation.name in ("GLOBAL", "INST"):
                used.add(".".join(str(argument).split(" ", 1)))
            elif operation.name == "STACK_GLOBAL":
                used.add(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
            elif isinstance(argument, bytes):
                texts.append(argument.decode("latin1"))
        if "_codecs.encode" in used and any(_growing(text) for text in texts):
            used.add("_codecs.encode of bytes as bytes")
        # The old name in Python 2, which pickles still use.
        found |= {re.sub("^__builtin__", "builtins", name) for name in used}
    return sorted(name for name in found if name not in _PLAIN | {*_STAND_INS} and not _TORCH_NUMBERS.fullmatch(name))


def _growing(text: str) -> bool:
    return len(text) < 32 and re.sub(r"[^a-z0-9]+", "_", text.lower()) in _GROWING
