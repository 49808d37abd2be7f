"""The pickle operations of protocols 2 to 5, except those that PyTorch never writes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bdclean.inert import calls, names
from bdclean.inert.nodes import RefusedError

if TYPE_CHECKING:
    from bdclean.inert.machine import Machine


def stop(machine: Machine) -> None:
    """The end of the pickle, which `run` handles."""


def _read(kind: str) -> Callable[[Machine], None]:
    """An operation with a number as its operand."""
    number = struct.Struct(kind)
    return lambda machine: machine.stack.append(machine.number(number))


def _sized(length: str, make: Callable[[memoryview], Any]) -> Callable[[Machine], None]:
    """An operation with a length and that number of bytes as its operand."""
    number = struct.Struct(length)
    return lambda machine: machine.stack.append(make(machine.take(machine.number(number))))


def _long(data: memoryview) -> int:
    return int.from_bytes(data, "little", signed=True)


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")


def _old_text(data: memoryview) -> str:
    """A string of Python 2, which does not distinguish it from bytes."""
    return str(data, "latin1")


def _protocol(machine: Machine) -> None:
    if not 2 <= machine.take(1)[0] <= 5:
        raise RefusedError("its pickle is not of protocol 2 to 5")


def _frame(machine: Machine) -> None:
    """A hint for reading ahead, which is ignored."""
    machine.take(8)


def _line_number(machine: Machine) -> None:
    """An integer in text form, as Python 2 wrote it; 00 and 01 are booleans."""
    line = machine.line()
    machine.stack.append({"00": False, "01": True}.get(line) if line in ("00", "01") else int(line[:40]))


def _mark(machine: Machine) -> None:
    machine.count()
    machine.marked.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_marked(machine: Machine) -> None:
    machine.pop_mark()


def _empty(kind: type) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        machine.count()
        machine.stack.append(kind())

    return make


def _tuple(count: int) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        if len(machine.stack) < count:
            raise IndexError
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return make


def _marked_tuple(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(tuple(items))


def _marked_list(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(items)


def _marked_dict(machine: Machine) -> None:
    pairs = machine.pop_mark()
    machine.stack.append({})
    machine.store(machine.stack[-1], pairs)


def _marked_frozenset(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(frozenset(map(names.checked_key, items)))


def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    machine.extend(machine.stack[-1], [value], list)


def _appends(machine: Machine) -> None:
    values = machine.pop_mark()
    machine.extend(machine.stack[-1], values, list)


def _add_items(machine: Machine) -> None:
    values = machine.pop_mark()
    machine.extend(machine.stack[-1], values, set)


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.store(machine.stack[-1], [key, value])


def _set_items(machine: Machine) -> None:
    pairs = machine.pop_mark()
    machine.store(machine.stack[-1], pairs)


def _get(kind: str) -> Callable[[Machine], None]:
    number = struct.Struct(kind)
    return lambda machine: machine.stack.append(machine.memo[machine.number(number)])


def _put(kind: str) -> Callable[[Machine], None]:
    number = struct.Struct(kind)
    return lambda machine: machine.remember(machine.number(number))


def _memoize(machine: Machine) -> None:
    machine.remember(len(machine.memo))


OPERATIONS: dict[int, Callable[[Machine], None]] = {
    ord(letter): operation
    for letter, operation in {
        ".": stop,
        "\x80": _protocol,
        "\x95": _frame,
        "(": _mark,
        "0": _pop,
        "1": _pop_marked,
        "2": lambda machine: machine.stack.append(machine.stack[-1]),
        "N": lambda machine: machine.stack.append(None),
        "\x88": lambda machine: machine.stack.append(True),
        "\x89": lambda machine: machine.stack.append(False),
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
        ")": lambda machine: machine.stack.append(()),
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
        "c": calls.global_,
        "\x93": calls.stack_global,
        "R": calls.reduce,
        "o": calls.marked_call,
        "i": calls.named_call,
        "\x81": calls.new,
        "\x92": calls.new_with_names,
        "b": calls.build,
        "Q": calls.persistent,
    }.items()
}
"""Maps each byte of a pickle to its operation."""
