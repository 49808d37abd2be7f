"""Types of options: their words, checks of values, and the classes that they accept."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

NAMES = {"int": "int", "float": "float", "bool": "bool", "str": "str", "NoneType": "NoneType"}
NAMES |= dict.fromkeys(("list", "tuple", "Sequence", "Iterable"), "list") | dict.fromkeys(("dict", "Mapping"), "dict")
"""Names of types in messages, by their Python names."""
PLAIN = ("builtins", "datetime", "typing", "collections.abc", "types")
"""Modules whose types are not classes that an option can choose."""


def alternatives(hint: Any) -> list[Any]:
    """The alternatives of a union type."""
    if get_origin(hint) in (Union, types.UnionType):
        return [kind for part in get_args(hint) for kind in alternatives(part)]
    return [hint]


def words_of(hint: Any) -> list[str]:
    """The words that a type accepts."""
    return [str(word) for kind in alternatives(hint) if get_origin(kind) is Literal for word in get_args(kind)]


def types_of(hint: Any) -> list[str]:
    """The types that a type accepts besides words, as named in `messages.TYPES`."""
    return [name for kind in alternatives(hint) if get_origin(kind) is not Literal and (name := _name(kind))]


def takes(hint: Any, value: Any, written: bool) -> bool:
    """Whether a type accepts a value.

    Args:
        hint: The type.
        value: The value.
        written: Whether the value is a word of a command line, which the parser reads as YAML.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        if written:
            parser.parse_args([f"--value={value}"])
        else:
            parser.parse_object({"value": value})
    except (ArgumentError, ValueError):
        return False
    return True


def kinds_of(hint: Any) -> list[type]:
    """The base classes of the objects that a type accepts, including objects made by a callable."""
    return [kind for part in alternatives(hint) for kind in _kinds(part)]


def arguments_of(kind: type) -> dict[str, tuple[Any, bool]]:
    """Type of each argument of a class, and whether it is required, by name."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    actions = [action for action in parser._actions if getattr(action, "_typehint", None) is not None]
    # The parser adds an option `.help`, of the same type, to each option that names a class.
    hints: dict[str, tuple[Any, bool]] = {one.dest: (vars(one)["_typehint"], one.required) for one in actions}
    return {name: found for name, found in hints.items() if not name.endswith(".help")}


def untyped_argument(kind: type) -> str | None:
    """The first argument of a class that has neither a type nor a default; None without one."""
    empty, several = inspect.Parameter.empty, (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one for one in inspect.signature(kind).parameters.values() if one.default is empty]
    return next((one.name for one in needed if one.annotation is empty and one.kind not in several), None)


def find_class(name: str, kinds: Sequence[type]) -> type | None:
    """Find a class by name.

    Args:
        name: Its short name or its import path.
        kinds: Base classes, of which it has to be a subclass of one.

    Returns:
        The class; None if there is no such class.

    Raises:
        ModuleNotFoundError: If there is no such module.
    """
    module, _, short_name = name.rpartition(".")
    if not module:
        return {one.__name__: one for kind in kinds for one in _derived(kind)}.get(short_name)
    found = getattr(importlib.import_module(module), short_name, None)
    return found if isinstance(found, type) and issubclass(found, tuple(kinds)) else None


def _derived(kind: type) -> list[type]:
    direct: list[type] = kind.__subclasses__()
    return [kind, *(one for child in direct for one in _derived(child))]


def _kinds(hint: Any) -> Iterator[type]:
    origin = get_origin(hint)
    if origin is Callable or getattr(origin, "__name__", "") == "Callable":
        yield from kinds_of(get_args(hint)[-1])
    elif origin in (list, tuple, Sequence) or getattr(origin, "__name__", "") in ("Sequence", "Iterable"):
        for part in get_args(hint):
            yield from kinds_of(part)
    elif isinstance(hint, type) and hint.__module__ not in PLAIN and not issubclass(hint, PurePath):
        yield hint


def _name(kind: Any) -> str | None:
    origin = get_origin(kind) or kind
    if origin is tuple and len(get_args(kind)) == 2 and Ellipsis not in get_args(kind):
        return "pair"
    return NAMES.get(getattr(origin, "__name__", ""))
