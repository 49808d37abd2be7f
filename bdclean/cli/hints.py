"""Types of options: what a user writes for them, whether a value is one, and which classes are meant."""

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
"""Types by the names that messages have for them."""
PLAIN = ("builtins", "datetime", "typing", "collections.abc", "types")
"""Modules of the types that are no classes to choose among."""


def alternatives(hint: Any) -> list[Any]:
    """The types of which an option takes any."""
    if get_origin(hint) in (Union, types.UnionType):
        return [kind for part in get_args(hint) for kind in alternatives(part)]
    return [hint]


def words_of(hint: Any) -> list[str]:
    """The words that an option takes."""
    return [str(word) for kind in alternatives(hint) if get_origin(kind) is Literal for word in get_args(kind)]


def types_of(hint: Any) -> list[str]:
    """The types that an option takes beside words, as `messages.TYPES` names them."""
    return [name for kind in alternatives(hint) if get_origin(kind) is not Literal and (name := _name(kind))]


def takes(hint: Any, value: Any, written: bool) -> bool:
    """Whether a value is one of a type.

    Args:
        hint: The type.
        value: The value.
        written: Whether it is a word of a command line, which the parser reads as YAML.
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
    """The classes of which an option takes one, or something that makes one."""
    return [kind for part in alternatives(hint) for kind in _kinds(part)]


def arguments_of(kind: type) -> dict[str, tuple[Any, bool]]:
    """Arguments of a class: name to its type, and whether it has to be given."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    actions = [action for action in parser._actions if getattr(action, "_typehint", None) is not None]
    # The help of an option that names a class has the type of that option.
    hints: dict[str, tuple[Any, bool]] = {one.dest: (vars(one)["_typehint"], one.required) for one in actions}
    return {name: found for name, found in hints.items() if not name.endswith(".help")}


def untyped_argument(kind: type) -> str | None:
    """The first argument of a class that has neither a type nor a default, if there is one."""
    empty, several = inspect.Parameter.empty, (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one for one in inspect.signature(kind).parameters.values() if one.default is empty]
    return next((one.name for one in needed if one.annotation is empty and one.kind not in several), None)


def find_class(name: str, kinds: Sequence[type]) -> type | None:
    """The class of a name, if there is one that is of some kinds.

    Args:
        name: Its short name or its import path.
        kinds: What it has to be derived from.

    Raises:
        ModuleNotFoundError: If there is no such module.
    """
    module, _, own = name.rpartition(".")
    if not module:
        return {one.__name__: one for kind in kinds for one in _derived(kind)}.get(own)
    made = getattr(importlib.import_module(module), own, None)
    return made if isinstance(made, type) and issubclass(made, tuple(kinds)) else None


def _derived(kind: type) -> list[type]:
    direct: list[type] = kind.__subclasses__()
    return [kind, *(one for own in direct for one in _derived(own))]


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
