"""Pickle operations for globals, calls and object states, which only make placeholders."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from bdclean.inert import names
from bdclean.inert.nodes import Array, Dtype, Name, Object, Picture, RefusedError

if TYPE_CHECKING:
    from bdclean.inert.machine import Machine

LONGEST_NAME = 1000
"""Maximum length of a global's name, including its module, in characters."""


def global_(machine: Machine) -> None:
    """A global: its module and its name, one line each."""
    module = machine.line()
    machine.stack.append(Name(names.canonical(module, machine.line())))


def stack_global(machine: Machine) -> None:
    """A global, from two strings on the stack."""
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str or len(name) + len(module) > LONGEST_NAME:
        raise RefusedError("a name in its pickle is not a string")
    machine.stack.append(Name(names.canonical(module, name)))


def reduce(machine: Machine) -> None:
    """A call with a tuple of arguments."""
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def marked_call(machine: Machine) -> None:
    """A call of the first item after a mark, with the following items as arguments."""
    function, *arguments = machine.pop_mark()
    machine.stack.append(machine.call(function, tuple(arguments)))


def named_call(machine: Machine) -> None:
    """A call of a global, given in two lines, with the items after a mark as arguments."""
    module = machine.line()
    function = Name(names.canonical(module, machine.line()))
    arguments = machine.pop_mark()
    machine.stack.append(machine.call(function, tuple(arguments)))


def new(machine: Machine) -> None:
    """A new object of a class, with a tuple of arguments."""
    machine.count()
    arguments, kind = machine.stack.pop(), machine.stack.pop()
    if type(kind) is not Name or type(arguments) is not tuple:
        raise RefusedError("it makes an object of something that is not a class")
    machine.stack.append(names.new(kind, arguments))


def new_with_names(machine: Machine) -> None:
    """A new object of a class; keyword arguments are ignored."""
    machine.stack.pop()
    new(machine)


def build(machine: Machine) -> None:
    """Set the state of an object: only of placeholders, and of objects that expect a state."""
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
        target._metadata = state["_metadata"]  # type: ignore[attr-defined]  # versions of layers
    else:
        what = ", ".join(map(str, state))[:80] if type(state) is dict else "a state"
        raise RefusedError(f"it gives {what} to a {type(target).__name__}")


def persistent(machine: Machine) -> None:
    """A storage, from its persistent id."""
    machine.stack[-1] = machine.storages(machine.stack[-1])
