"""Parsing the bytes of a PyTorch file into a description of its content: the zip format, and the format before it.

All bytes are read once, so the checked bytes are the bytes that are used.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdclean.inert import kinds, names
from bdclean.inert.machine import Machine
from bdclean.inert.nodes import ITEM_SIZES, RefusedError, Storage

ARCHIVE = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file of PyTorch before 1.6."""
PROTOCOL = 1001
DAMAGES = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    struct.error,
)
"""Errors that damaged pickles and archives cause."""
COUNT = struct.Struct("<q")
"""Number of elements, before the elements of each storage."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Header of each member of an archive: a mark, and the lengths of name and extra field."""
ENCRYPTED = 1


class BlockedError(RefusedError):
    """A pickle would call unknown functions, whose names are the arguments."""


@dataclass(frozen=True)
class Description:
    """The content of a file.

    Attributes:
        content: Plain values, and descriptions of tensors and arrays.
        swapped: Whether the byte order of its numbers differs from this machine's.
    """

    content: Any
    swapped: bool


def parse(data: memoryview) -> Description:
    """Read a file of `torch.save`.

    Args:
        data: All bytes of the file; storages are slices of them.

    Raises:
        BlockedError: If loading it would run code.
        RefusedError: If it is damaged, or not as PyTorch writes files.
    """
    if (other := kinds.of_bytes(bytes(data[: kinds.ENOUGH]))) is not None:
        raise RefusedError(other)
    try:
        return _archive(data) if data[:4] == ARCHIVE else _legacy(data, CALLS)
    except DAMAGES as error:
        raise RefusedError(f"it is damaged: {type(error).__name__} {error}") from error


def _run(machine: Machine) -> Any:
    """Run a pickle and return its content; blocked calls take precedence over other errors."""
    failure: Exception | None = None
    content = None
    try:
        content = machine.run()
    except Exception as error:  # it is raised below
        failure = error
    if machine.blocked:
        raise BlockedError(*sorted(machine.blocked)) from failure
    if failure is not None:
        raise failure
    return content


# The zip format


def _archive(data: memoryview) -> Description:
    members = _members(data)
    root = next(iter(members)).partition("/")[0]
    code = members.get(f"{root}/data.pkl")
    if code is None:
        raise RefusedError("it has no data.pkl")
    for name in members:
        folder, _, path = name.partition("/")
        known = path in ("data.pkl", "version", "byteorder") or path.startswith(("data/", "."))
        if folder != root or not known:
            raise RefusedError(f"it has a member {name[:80]!r}, which torch.save never writes")
    order = bytes(members.get(f"{root}/byteorder", b"little"))
    if order not in (b"little", b"big"):
        raise RefusedError(f"its byte order is {order[:20]!r}")
    storages: dict[str, Storage] = {}

    def find(persistent: Any) -> Storage:
        found = names.storage(persistent)
        known = storages.setdefault(found.key, found)
        if known is found:
            found.data = members.get(f"{root}/data/{found.key}")
            if found.data is None or len(found.data) != found.nbytes:
                raise RefusedError(f"storage {found.key[:20]!r} claims {found.nbytes} bytes that are missing")
        elif (known.dtype, known.nbytes) != (found.dtype, found.nbytes):
            raise RefusedError(f"storage {found.key[:20]!r} is defined twice, differently")
        return known

    return Description(_run(Machine(code, find, CALLS)), order.decode() != sys.byteorder)


def _members(data: memoryview) -> dict[str, memoryview]:
    """Names and bytes of the members of an archive, which `torch.save` does not compress."""
    try:
        entries = zipfile.ZipFile(_Window(data)).infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise RefusedError(f"it is cut off or damaged: {error}") from error
    if not entries:
        raise RefusedError("it is an empty archive")
    if (other := kinds.of_members([entry.filename for entry in entries])) is not None:
        raise RefusedError(other)
    claimed = sum(entry.file_size for entry in entries)
    if claimed > len(data):
        raise RefusedError(f"it unpacks to {claimed} bytes, more than the file has")
    members: dict[str, memoryview] = {}
    for entry in entries:
        start = entry.header_offset
        mark, name, extra = LOCAL_HEADER.unpack(data[start : start + LOCAL_HEADER.size])
        begin = start + LOCAL_HEADER.size
        stored = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
        if mark != ARCHIVE or not stored or entry.flag_bits & ENCRYPTED:
            raise RefusedError(f"its member {entry.filename[:80]!r} is compressed, encrypted or not there")
        if not entry.filename.isascii() or bytes(data[begin : begin + name]) != entry.orig_filename.encode():
            raise RefusedError(f"its member {entry.filename[:80]!r} has two names")
        begin += name + extra
        if begin + entry.file_size > len(data):
            raise RefusedError(f"its member {entry.filename[:80]!r} is cut off")
        members[entry.filename] = data[begin : begin + entry.file_size]
    if len({name.lower() for name in members}) < len(entries):
        # torch ignores case here.
        raise RefusedError("two of its members have one name")
    return members


class _Window(io.RawIOBase):
    """A file object over bytes, without a copy."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._place = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self._data)}[whence]
        if start + offset < 0:
            raise OSError("before the beginning")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else self._place + size
        part = bytes(self._data[self._place : end])
        self._place += len(part)
        return part


# The format before PyTorch 1.6, and plain pickles


def _legacy(data: memoryview, calls: Mapping[str, names.Call]) -> Description:
    """Parse consecutive pickles (a mark, a version, the system, the content, the storages' keys), then the elements.

    A single pickle without the mark is the content itself.
    """
    storages: dict[str, Storage] = {}

    def find(persistent: Any) -> Any:
        if isinstance(persistent, tuple) and len(persistent) == 4 and persistent[0] == "module":
            # The class of a module, with its source code.
            return persistent[1]
        found = names.storage(persistent)
        known = storages.setdefault(found.key, found)
        if (known.dtype, known.nbytes) != (found.dtype, found.nbytes):
            raise RefusedError(f"storage {found.key[:20]!r} is defined twice, differently")
        if known.nbytes > len(data):
            raise RefusedError(f"storage {found.key[:20]!r} claims {found.nbytes} bytes that are missing")
        return known

    place = 0

    def next_pickle() -> Any:
        nonlocal place
        machine = Machine(data[place:], find, calls)
        content = _run(machine)
        place += machine.end
        return content

    mark = next_pickle()
    if type(mark) is not int or mark != MAGIC:
        if place < len(data):
            raise RefusedError("torch.save did not write it")
        return Description(mark, False)
    version, system, content, keys = (next_pickle() for _ in range(4))
    if version != PROTOCOL or type(system) is not dict or type(keys) is not list:
        raise RefusedError("its format is of an unknown version of PyTorch")
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or storage.data is not None:
            raise RefusedError(f"no tensor uses its storage {str(key)[:20]!r}")
        (count,) = COUNT.unpack(data[place : place + COUNT.size])
        place += COUNT.size
        storage.data = data[place : place + storage.nbytes]
        if count * ITEM_SIZES[storage.dtype] != storage.nbytes or len(storage.data) != storage.nbytes:
            raise RefusedError(f"storage {key[:20]!r} claims {storage.nbytes} bytes that are missing")
        place += storage.nbytes
    if any(storage.data is None for storage in storages.values()):
        raise RefusedError("some of its storages are missing")
    return Description(content, system.get("little_endian", True) is not (sys.byteorder == "little"))


def _nested(arguments: tuple[Any, ...]) -> Any:
    """A storage that pickle.dump wrote: a complete file of the old format, without further nesting."""
    (data,) = arguments
    if type(data) is not bytes:
        raise RefusedError("a storage that is not made of bytes")
    inner = _legacy(memoryview(data), names.CALLS)
    if type(inner.content) is not Storage or inner.swapped:
        raise RefusedError("a nested file that is not a storage")
    return inner.content


CALLS: Mapping[str, names.Call] = {**names.CALLS, "torch.storage._load_from_bytes": _nested}
"""Functions that a file may call, except nested files."""
