"""An interpreter of pickles that makes descriptions instead of objects, without importing or calling their globals.

`operations` contains all operations in files of PyTorch; others are refused.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from bdclean.inert import names
from bdclean.inert.nodes import Array, Name, Object, Picture, RefusedError, Storage
from bdclean.inert.operations import OPERATIONS, stop

MOST_OPERATIONS = 10_000_000
"""Maximum operations of a pickle: enough for the labels of a million images, in about four seconds."""
MOST_OBJECTS = 4_000_000
"""Maximum containers, and maximum values in the memo: one byte of a pickle can make a hundred bytes of these."""
LONGEST_LINE = 1000
"""Maximum length of a name or a number in text form, in bytes."""

Storages = Callable[[Any], Any]
"""Maps the persistent id of a storage to the storage."""


class Machine:
    """Interprets one pickle.

    Args:
        code: The pickle, and possibly further bytes.
        storages: Finds a storage.
        calls: Functions that it may call, by name.

    Attributes:
        end: Position of the next operation in `code`; finally the end of the pickle.
        blocked: Names of unknown functions that it would have called.
        stack: The stack of operands and results.
        marked: The stacks below, one for each open mark.
        memo: Stored values, by number.
    """

    def __init__(self, code: memoryview, storages: Storages, calls: Mapping[str, names.Call]) -> None:
        self.code, self.storages, self.calls = code, storages, calls
        self.end = 0
        self.blocked: set[str] = set()
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.containers = 0
        # An honest pickle copies bytes at most twice: from text to bytes, and into an array.
        self.copyable = 2 * len(code)

    def run(self) -> Any:
        """Interpret the pickle, and return its content.

        Raises:
            RefusedError: If it has operations that files of PyTorch do not have.
        """
        code = self.code
        for _ in range(MOST_OPERATIONS):
            operation = OPERATIONS.get(code[self.end])
            if operation is None:
                raise RefusedError(f"PyTorch never writes operation {code[self.end]:#04x} of its pickle")
            self.end += 1
            if operation is stop:
                (result,) = self.stack
                return result
            operation(self)
        raise RefusedError(f"its pickle has more than {MOST_OPERATIONS} operations")

    # Building blocks of operations

    def count_copy(self, value: Any) -> None:
        """Refuse pickles that copy the same bytes or values repeatedly."""
        if type(value) in (Array, Picture):
            self.copyable -= len(value.data)
        elif type(value) is Storage:
            self.copyable -= value.nbytes
        elif type(value) in (bytes, bytearray, set, frozenset, OrderedDict, Counter):
            self.copyable -= len(value)
        if self.copyable < 0:
            raise RefusedError("it copies the same values repeatedly")

    def count(self) -> None:
        self.containers += 1
        if self.containers > MOST_OBJECTS:
            raise RefusedError(f"its pickle makes more than {MOST_OBJECTS} containers")

    def take(self, count: int) -> memoryview:
        """The next bytes of the pickle."""
        start, self.end = self.end, self.end + count
        if self.end > len(self.code):
            raise RefusedError("its pickle is cut off")
        return self.code[start : self.end]

    def number(self, kind: struct.Struct) -> Any:
        (value,) = kind.unpack_from(self.code, self.end)
        self.end += kind.size
        return value

    def line(self) -> str:
        start = self.end
        line = bytes(self.code[start : start + LONGEST_LINE])
        length = line.find(b"\n")
        if length < 0:
            raise RefusedError("a line of its pickle has no end")
        self.end += length + 1
        return line[:length].decode()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]
        if len(self.memo) > MOST_OBJECTS:
            raise RefusedError(f"its pickle remembers more than {MOST_OBJECTS} objects")

    def call(self, function: Any, arguments: Any) -> Any:
        if type(function) is not Name or type(arguments) is not tuple:
            raise RefusedError("it calls something that is not a function")
        known = self.calls.get(function.full)
        if known is not None:
            value = known(arguments)
            self.count_copy(value)
            return value
        if not names.HARMLESS.fullmatch(function.full):
            self.blocked.add(function.full)
        return Object(function.full)

    def store(self, target: Any, pairs: list[Any]) -> None:
        """Add alternating keys and values to a dictionary."""
        if type(target) in (dict, OrderedDict, Counter):
            for index in range(0, len(pairs), 2):
                target[names.checked_key(pairs[index])] = pairs[index + 1]
        elif type(target) is not Object:
            raise RefusedError(f"it puts entries into a {type(target).__name__}")

    def extend(self, target: Any, values: list[Any], kind: type) -> None:
        if type(target) is list and kind is list:
            target.extend(values)
        elif type(target) is set and kind is set:
            target.update(map(names.checked_key, values))
        elif type(target) is not Object:
            raise RefusedError(f"it puts values into a {type(target).__name__}")
