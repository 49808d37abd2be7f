"""An interpreter of pickles that makes descriptions instead of objects: it imports nothing and calls nothing of theirs.

Each operation that PyTorch's files have is here, protocols 2 to 5; any other is refused.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from bdclean.inert import names
from bdclean.inert.nodes import Array, Dtype, Name, Object, Picture, RefusedError, Storage

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
        end: Where the pickle ended in `code`.
        blocked: Names of what it would have called, and nobody knows.
    """

    def __init__(self, code: memoryview, storages: Storages, calls: Mapping[str, names.Call]) -> None:
        self.code, self.storages, self.calls = code, storages, calls
        self.end = 0
        self.blocked: set[str] = set()
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._objects = 0
        # What an honest pickle copies stands in it once: bytes, first as text, and then in an array.
        self._copyable = 2 * len(code)

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
            if operation is _stop:
                (result,) = self._stack
                return result
            operation(self)
        raise RefusedError(f"its pickle has more than {MOST_OPERATIONS} operations")

    # What operations are made of

    def _count_copy(self, made: Any) -> None:
        """Notice where the same bytes or values are copied again and again."""
        if type(made) in (Array, Picture):
            self._copyable -= len(made.data)
        elif type(made) is Storage:
            self._copyable -= made.nbytes
        elif type(made) in (bytes, bytearray, set, frozenset, OrderedDict, Counter):
            self._copyable -= len(made)
        if self._copyable < 0:
            raise RefusedError("it makes more than it holds")

    def _count(self) -> None:
        self._objects += 1
        if self._objects > MOST_OBJECTS:
            raise RefusedError(f"its pickle makes more than {MOST_OBJECTS} containers")

    def _take(self, count: int) -> memoryview:
        """The next bytes of the pickle."""
        start, self.end = self.end, self.end + count
        if self.end > len(self.code):
            raise RefusedError("its pickle is cut off")
        return self.code[start : self.end]

    def _number(self, kind: struct.Struct) -> Any:
        (value,) = kind.unpack_from(self.code, self.end)
        self.end += kind.size
        return value

    def _line(self) -> str:
        start = self.end
        line = bytes(self.code[start : start + LONGEST_LINE])
        length = line.find(b"\n")
        if length < 0:
            raise RefusedError("a line of its pickle has no end")
        self.end += length + 1
        return line[:length].decode()

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _remember(self, key: int) -> None:
        self._memo[key] = self._stack[-1]
        if len(self._memo) > MOST_OBJECTS:
            raise RefusedError(f"its pickle remembers more than {MOST_OBJECTS} objects")

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(function) is not Name or type(arguments) is not tuple:
            raise RefusedError("it calls what is no function")
        known = self.calls.get(function.full)
        if known is not None:
            made = known(arguments)
            self._count_copy(made)
            return made
        if not names.HARMLESS.fullmatch(function.full):
            self.blocked.add(function.full)
        return Object(function.full)

    def _store(self, target: Any, pairs: list[Any]) -> None:
        """Put keys and values, by turns, into a dictionary."""
        if type(target) in (dict, OrderedDict, Counter):
            for index in range(0, len(pairs), 2):
                target[names.checked_key(pairs[index])] = pairs[index + 1]
        elif type(target) is not Object:
            raise RefusedError(f"it puts entries into a {type(target).__name__}")

    def _extend(self, target: Any, values: list[Any], kind: type) -> None:
        if type(target) is list and kind is list:
            target.extend(values)
        elif type(target) is set and kind is set:
            target.update(map(names.checked_key, values))
        elif type(target) is not Object:
            raise RefusedError(f"it puts values into a {type(target).__name__}")


def _stop(machine: Machine) -> None:
    """The end: `run` knows it."""


def _read(kind: str) -> Callable[[Machine], None]:
    """An operation that is followed by a number."""
    number = struct.Struct(kind)
    return lambda machine: machine._stack.append(machine._number(number))


def _sized(length: str, make: Callable[[memoryview], Any]) -> Callable[[Machine], None]:
    """An operation that is followed by a length and as many bytes."""
    number = struct.Struct(length)
    return lambda machine: machine._stack.append(make(machine._take(machine._number(number))))


def _long(data: memoryview) -> int:
    return int.from_bytes(data, "little", signed=True)


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")


def _old_text(data: memoryview) -> str:
    """A text of Python 2, which could not tell it from bytes."""
    return str(data, "latin1")


def _protocol(machine: Machine) -> None:
    if not 2 <= machine._take(1)[0] <= 5:
        raise RefusedError("its pickle is not of protocol 2 to 5")


def _frame(machine: Machine) -> None:
    """How much is to be read ahead: nothing to do."""
    machine._take(8)


def _line_number(machine: Machine) -> None:
    """A whole number as text, as Python 2 wrote long ones; 00 and 01 are truth values."""
    line = machine._line()
    machine._stack.append({"00": False, "01": True}.get(line) if line in ("00", "01") else int(line[:40]))


def _mark(machine: Machine) -> None:
    machine._count()
    machine._marked.append(machine._stack)
    machine._stack = []


def _pop(machine: Machine) -> None:
    if machine._stack:
        machine._stack.pop()
    else:
        machine._pop_mark()


def _pop_marked(machine: Machine) -> None:
    machine._pop_mark()


def _empty(kind: type) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        machine._count()
        machine._stack.append(kind())

    return make


def _tuple(count: int) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        if len(machine._stack) < count:
            raise IndexError
        machine._stack[-count:] = [tuple(machine._stack[-count:])]

    return make


def _marked_tuple(machine: Machine) -> None:
    items = machine._pop_mark()
    machine._stack.append(tuple(items))


def _marked_list(machine: Machine) -> None:
    items = machine._pop_mark()
    machine._stack.append(items)


def _marked_dict(machine: Machine) -> None:
    pairs = machine._pop_mark()
    machine._stack.append({})
    machine._store(machine._stack[-1], pairs)


def _marked_frozenset(machine: Machine) -> None:
    items = machine._pop_mark()
    machine._stack.append(frozenset(map(names.checked_key, items)))


def _append(machine: Machine) -> None:
    value = machine._stack.pop()
    machine._extend(machine._stack[-1], [value], list)


def _appends(machine: Machine) -> None:
    values = machine._pop_mark()
    machine._extend(machine._stack[-1], values, list)


def _add_items(machine: Machine) -> None:
    values = machine._pop_mark()
    machine._extend(machine._stack[-1], values, set)


def _set_item(machine: Machine) -> None:
    value, key = machine._stack.pop(), machine._stack.pop()
    machine._store(machine._stack[-1], [key, value])


def _set_items(machine: Machine) -> None:
    pairs = machine._pop_mark()
    machine._store(machine._stack[-1], pairs)


def _get(kind: str) -> Callable[[Machine], None]:
    number = struct.Struct(kind)
    return lambda machine: machine._stack.append(machine._memo[machine._number(number)])


def _put(kind: str) -> Callable[[Machine], None]:
    number = struct.Struct(kind)
    return lambda machine: machine._remember(machine._number(number))


def _memoize(machine: Machine) -> None:
    machine._remember(len(machine._memo))


def _global(machine: Machine) -> None:
    module = machine._line()
    machine._stack.append(Name(names.canonical(module, machine._line())))


def _stack_global(machine: Machine) -> None:
    name, module = machine._stack.pop(), machine._stack.pop()
    if type(name) is not str or type(module) is not str or len(name) + len(module) > LONGEST_LINE:
        raise RefusedError("a name in its pickle is no text")
    machine._stack.append(Name(names.canonical(module, name)))


def _reduce(machine: Machine) -> None:
    arguments = machine._stack.pop()
    machine._stack[-1] = machine._call(machine._stack[-1], arguments)


def _marked_call(machine: Machine) -> None:
    function, *arguments = machine._pop_mark()
    machine._stack.append(machine._call(function, tuple(arguments)))


def _named_call(machine: Machine) -> None:
    module = machine._line()
    function = Name(names.canonical(module, machine._line()))
    arguments = machine._pop_mark()
    machine._stack.append(machine._call(function, tuple(arguments)))


def _new(machine: Machine) -> None:
    machine._count()
    arguments, kind = machine._stack.pop(), machine._stack.pop()
    if type(kind) is not Name or type(arguments) is not tuple:
        raise RefusedError("it makes an object of what is no class")
    machine._stack.append(names.new(kind, arguments))


def _new_with_names(machine: Machine) -> None:
    machine._stack.pop()
    _new(machine)


def _build(machine: Machine) -> None:
    """Give an object its state: nothing but stand-ins and what expects one."""
    state = machine._stack.pop()
    target = machine._stack[-1]
    if type(target) is Object:
        target.state = state
    elif type(target) is Picture:
        target.fill(state)
        machine._count_copy(target)
    elif type(target) is Array and not target.scalar:
        _, shape, dtype, fortran, data = state
        target.fill(dtype, shape, fortran, data)
        machine._count_copy(target)
    elif type(target) is Dtype:
        _, order, *structure = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structure[:3]):
            target.plain = False
        else:
            target.order = order
    elif type(target) is OrderedDict and type(state) is dict and [*state] == ["_metadata"]:
        target._metadata = state["_metadata"]  # type: ignore[attr-defined]  # the versions of layers
    else:
        what = ", ".join(map(str, state))[:80] if type(state) is dict else "a state"
        raise RefusedError(f"it gives {what} to a {type(target).__name__}")


def _persistent(machine: Machine) -> None:
    machine._stack[-1] = machine.storages(machine._stack[-1])


OPERATIONS: dict[int, Callable[[Machine], None]] = {
    ord(letter): operation
    for letter, operation in {
        ".": _stop,
        "\x80": _protocol,
        "\x95": _frame,
        "(": _mark,
        "0": _pop,
        "1": _pop_marked,
        "2": lambda machine: machine._stack.append(machine._stack[-1]),
        "N": lambda machine: machine._stack.append(None),
        "\x88": lambda machine: machine._stack.append(True),
        "\x89": lambda machine: machine._stack.append(False),
        "I": _line_number,
        "J": _read("<i"),
        "K": _read("<B"),
        "M": _read("<H"),
        "G": _read(">d"),
        "\x8a": _sized("<B", _long),
        "T": _sized("<I", _old_text),
        "U": _sized("<B", _old_text),
        "X": _sized("<I", _text),
        "\x8c": _sized("<B", _text),
        "\x8d": _sized("<Q", _text),
        "B": _sized("<I", bytes),
        "C": _sized("<B", bytes),
        "\x8e": _sized("<Q", bytes),
        "\x96": _sized("<Q", bytearray),
        "]": _empty(list),
        "}": _empty(dict),
        ")": lambda machine: machine._stack.append(()),
        "\x8f": _empty(set),
        "\x85": _tuple(1),
        "\x86": _tuple(2),
        "\x87": _tuple(3),
        "t": _marked_tuple,
        "l": _marked_list,
        "d": _marked_dict,
        "\x91": _marked_frozenset,
        "a": _append,
        "e": _appends,
        "\x90": _add_items,
        "s": _set_item,
        "u": _set_items,
        "h": _get("<B"),
        "j": _get("<I"),
        "q": _put("<B"),
        "r": _put("<I"),
        "\x94": _memoize,
        "c": _global,
        "\x93": _stack_global,
        "R": _reduce,
        "o": _marked_call,
        "i": _named_call,
        "\x81": _new,
        "\x92": _new_with_names,
        "b": _build,
        "Q": _persistent,
    }.items()
}
"""What each byte of a pickle does."""
