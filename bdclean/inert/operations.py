"""What each operation of a pickle does to the machine: protocols 2 to 5, but for what PyTorch never writes."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bdclean.inert import names
from bdclean.inert.nodes import Array, Dtype, Name, Object, Picture, RefusedError

if TYPE_CHECKING:
    from bdclean.inert.machine import Machine

LONGEST_NAME = 1000
"""Of a global, with its module, in letters."""


def stop(machine: Machine) -> None:
    """The end: `run` knows it."""


def _read(kind: str) -> Callable[[Machine], None]:
    """An operation that is followed by a number."""
    number = struct.Struct(kind)
    return lambda machine: machine.stack.append(machine.number(number))


def _sized(length: str, make: Callable[[memoryview], Any]) -> Callable[[Machine], None]:
    """An operation that is followed by a length and as many bytes."""
    number = struct.Struct(length)
    return lambda machine: machine.stack.append(make(machine.take(machine.number(number))))


def _long(data: memoryview) -> int:
    return int.from_bytes(data, "little", signed=True)


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")


def _old_text(data: memoryview) -> str:
    """A text of Python 2, which could not tell it from bytes."""
    return str(data, "latin1")


def _protocol(machine: Machine) -> None:
    if not 2 <= machine.take(1)[0] <= 5:
        raise RefusedError("its pickle is not of protocol 2 to 5")


def _frame(machine: Machine) -> None:
    """How much is to be read ahead: nothing to do."""
    machine.take(8)


def _line_number(machine: Machine) -> None:
    """A whole number as text, as Python 2 wrote long ones; 00 and 01 are truth values."""
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


def _global(machine: Machine) -> None:
    module = machine.line()
    machine.stack.append(Name(names.canonical(module, machine.line())))


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str or len(name) + len(module) > LONGEST_NAME:
        raise RefusedError("a name in its pickle is no text")
    machine.stack.append(Name(names.canonical(module, name)))


def _reduce(machine: Machine) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def _marked_call(machine: Machine) -> None:
    function, *arguments = machine.pop_mark()
    machine.stack.append(machine.call(function, tuple(arguments)))


def _named_call(machine: Machine) -> None:
    module = machine.line()
    function = Name(names.canonical(module, machine.line()))
    arguments = machine.pop_mark()
    machine.stack.append(machine.call(function, tuple(arguments)))


def _new(machine: Machine) -> None:
    machine.count()
    arguments, kind = machine.stack.pop(), machine.stack.pop()
    if type(kind) is not Name or type(arguments) is not tuple:
        raise RefusedError("it makes an object of what is no class")
    machine.stack.append(names.new(kind, arguments))


def _new_with_names(machine: Machine) -> None:
    machine.stack.pop()
    _new(machine)


def _build(machine: Machine) -> None:
    """Give an object its state: nothing but stand-ins and what expects one."""
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is Object:
        target.state = state
    elif type(target) is Picture:
        target.fill(state)
        machine.count_copy(target)
    elif type(target) is Array and not target.scalar:
        _, shape, dtype, fortran, data = state
        target.fill(dtype, shape, fortran, data)
        machine.count_copy(target)
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
    machine.stack[-1] = machine.storages(machine.stack[-1])


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
