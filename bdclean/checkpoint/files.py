"""Load tensors and plain values from an untrusted file without running any code in it.

`bdclean.inert` interprets pickles without importing or calling anything that they name, first in another process, which
may crash, and then in this one. Both processes and the tensors use bytes that are read once.
"""

from __future__ import annotations

import gc
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bdclean import first_line, first_ten
from bdclean.checkpoint.objects import Builder
from bdclean.errors import Given, InputError
from bdclean.inert import guard, kinds
from bdclean.inert.containers import BlockedError, parse
from bdclean.inert.nodes import RefusedError

LONGEST_HEADER = 2**24
"""Maximum length of the header of a safetensors file, in bytes; 100,000 tensors take about 10 MB."""
HEADER = struct.Struct("<Q")


@dataclass(frozen=True)
class Loaded:
    """The content of a file.

    Attributes:
        content: Tensors, arrays and plain values.
        notes: Notices about parts that were left out or changed, one line each.
    """

    content: Any
    notes: tuple[str, ...] = ()


def load(path: str, option: Given) -> Loaded:
    """Read a file of tensors and plain values.

    Args:
        path: The file, in PyTorch's zip or legacy format, or safetensors.
        option: The parameter that named the file, for messages.

    Raises:
        InputError: If the file is missing or damaged, would run code when loaded by torch, or claims more data than it
            has.
    """
    try:
        file_path = Path(path)
        if file_path.is_dir():
            raise RefusedError(kinds.of_folder(path))
        if not file_path.is_file():
            raise InputError(*option, f"{'not an ordinary file' if file_path.exists() else 'no such file'}")
        with file_path.open("rb") as file:
            return _read(file)
    except InputError:
        raise
    except BlockedError as error:
        raise InputError(*option, f"refused, it would run code on loading: {first_ten(error.args)}") from error
    except RefusedError as error:
        raise InputError(*option, f"not a readable checkpoint: {error}") from error
    except Exception as error:  # torch and others may fail in any way
        logging.getLogger(__name__).debug("%s", path, exc_info=True)
        raise InputError(*option, f"not a readable checkpoint: {first_line(error)[:200]}") from error


def _read(file: BinaryIO) -> Loaded:
    size = os.fstat(file.fileno()).st_size
    head = file.read(kinds.ENOUGH)
    file.seek(0)
    if _is_safetensors(head, size):
        from safetensors.torch import load as load_safetensors

        return Loaded(load_safetensors(file.read(size)))
    if (other := kinds.of_bytes(head)) is not None:
        raise RefusedError(other)
    data = np.empty(size, np.uint8)
    with guard.enduring(file):
        if file.readinto(data) != size:  # type: ignore[attr-defined]  # files have it
            raise RefusedError("the file changes while it is read")
    with _without_collection(), warnings.catch_warnings():
        # The user cannot fix deprecated features in the file.
        warnings.simplefilter("ignore")
        builder = Builder(parse(data.data))
        content = builder.build()
    return Loaded(content, (*_of_modules(builder), *_of_others(builder)))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Disable garbage collection, which takes longer than making the many objects of a file."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file is a safetensors file.

    Raises:
        RefusedError: If its header is longer than the limit or the file.
    """
    if head[HEADER.size : HEADER.size + 1] != b"{":
        return False
    (length,) = HEADER.unpack(head[: HEADER.size])
    if length > min(LONGEST_HEADER, size - HEADER.size):
        raise RefusedError(f"a file of safetensors whose header claims {length} bytes")
    return True


def _of_modules(builder: Builder) -> list[str]:
    return [
        f"a whole pickled module{f' under {place!r}' if place else ''} ({classes[0]}): only its weights are used. "
        f"None of its classes is imported or run ({first_ten(classes)}); the result is written as a plain state_dict"
        for place, classes in builder.modules.items()
    ]


def _of_others(builder: Builder) -> list[str]:
    left = [f"{what} under {place!r}" for place, what in builder.left_out.items()]
    return [f"left out, as they are neither tensors nor plain values: {first_ten(left)}"] if left else []
