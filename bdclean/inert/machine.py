"""An interpreter of pickles that makes descriptions instead of objects: it imports nothing and calls nothing of theirs.

`operations` has each operation that files of PyTorch have; any other is refused.
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
"""A pickle of a million images' labels has so many; they take some four seconds."""
MOST_OBJECTS = 4_000_000
"""Containers, and remembered values: a byte of a pickle can make a hundred bytes of these."""
LONGEST_LINE = 1000
"""Of a name or a number that is written as text, in bytes."""

Storages = Callable[[Any], Any]
"""From the identifier that a pickle has for a storage to the storage."""


class Machine:
    """Runs one pickle.

    Args:
        code: The pickle, and perhaps more behind it.
        storages: Finds a storage.
        calls: What it may call, by name.

    Attributes:
        end: Where the pickle goes on, and in the end where it ended, in `code`.
        blocked: Names of what it would have called, and nobody knows.
        stack: What operations take their arguments from, and leave their results on.
        marked: The stacks below, one for each open mark.
        memo: What is remembered, by its number.
    """

    def __init__(self, code: memoryview, storages: Storages, calls: Mapping[str, names.Call]) -> None:
        self.code, self.storages, self.calls = code, storages, calls
        self.end = 0
        self.blocked: set[str] = set()
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.containers = 0
        # What an honest pickle copies stands in it once: bytes, first as text, and then in an array.
        self.copyable = 2 * len(code)

    def run(self) -> Any:
        """Run the pickle to its end, and return what it describes.

        Raises:
            RefusedError: If it does anything that files of PyTorch do not.
        """
        code = self.code
        for _ in range(MOST_OPERATIONS):
            operation = OPERATIONS.get(code[self.end])
            if operation is None:
                raise RefusedError(f"operation {code[self.end]:#04x} of its pickle is none that PyTorch writes")
            self.end += 1
            if operation is stop:
                (result,) = self.stack
                return result
            operation(self)
        raise RefusedError(f"its pickle has more than {MOST_OPERATIONS} operations")

    # What operations are made of

    def count_copy(self, made: Any) -> None:
        """Notice where the same bytes or values are copied again and again."""
        if type(made) in (Array, Picture):
            self.copyable -= len(made.data)
        elif type(made) is Storage:
            self.copyable -= made.nbytes
        elif type(made) in (bytes, bytearray, set, frozenset, OrderedDict, Counter):
            self.copyable -= len(made)
        if self.copyable < 0:
            raise RefusedError("it makes more than it holds")

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
            raise RefusedError("it calls what is no function")
        known = self.calls.get(function.full)
        if known is not None:
            made = known(arguments)
            self.count_copy(made)
            return made
        if not names.HARMLESS.fullmatch(function.full):
            self.blocked.add(function.full)
        return Object(function.full)

    def store(self, target: Any, pairs: list[Any]) -> None:
        """Put keys and values, by turns, into a dictionary."""
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
