"""Find the error in a command line that the parser refuses, by checking each given option.

The parser's own message is not used: it is in terms of Python, and changes with the version of the parser.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

from bdclean import first_line
from bdclean.cli.classes import CLASSES, LINKS
from bdclean.cli.hints import arguments_of, find_class, kinds_of, takes, types_of, untyped_argument, words_of
from bdclean.cli.items import FLAGS, Item, all_items, is_group, items_of, stray_word
from bdclean.cli.messages import TYPES, expected, linked, no_class, no_mapping, no_option, no_value
from bdclean.cli.options import Options, options
from bdclean.cli.user_options import UserOptions, unquoted
from bdclean.errors import Given, InputError


@dataclass(frozen=True)
class Command:
    """The options of a subcommand.

    Attributes:
        parser: Its parser.
        known: Its options.
        links: Options that are set by another one: the other option, by the name of the first.
    """

    parser: ArgumentParser
    known: Options
    links: Mapping[str, str]

    def hint(self, name: str) -> Any:
        """The type of an option; None if it has no type, or does not exist."""
        hints = {action.dest: getattr(action, "_typehint", None) for action in self.parser._actions}
        return hints.get(name)


def diagnose(parser: ArgumentParser | None, user: UserOptions) -> InputError | None:
    """Describe the first error in a command line; None if no error is found.

    Args:
        parser: The parser of the subcommand; None if there is no such subcommand.
        user: The given options.
    """
    if parser is None:
        return None
    command = Command(parser, options(user.subcommand), LINKS.get(user.subcommand, {}))
    items = all_items(user, command.known)
    chosen = _chosen(items, command)
    for kind in chosen.values():
        if (untyped := untyped_argument(kind)) is not None:
            name = f"{kind.__module__}.{kind.__qualname__}"
            return InputError("", None, f"{name}: the argument {untyped} of its constructor has no type")
    if (error := _first(items, chosen, command)) is not None:
        return error
    stray = stray_word(user.words, user.subcommand)
    if stray is not None:
        return InputError("", None, f"{stray}: not expected here")
    return _absent({item.name for item in items}, chosen, command)


def check_classes(user: UserOptions) -> None:
    """Refuse a mapping without a class, for which the parser would silently use the default class.

    Args:
        user: The given options.

    Raises:
        InputError: If an option has such a mapping.
    """
    for option in (*CLASSES, "trainer.plugins"):
        value = unquoted(user.get(option))
        if value == {} or (isinstance(value, dict) and not isinstance(value.get("class_path", ""), str)):
            raise no_class(option, str(value.get("class_path", value)), CLASSES.get(option, []))


# Chosen classes


def _owner(name: str, command: Command) -> tuple[str, str] | None:
    """The option that names a class and the argument of this class, if `name` is an option of a class."""
    for option in command.known.classes.keys() | CLASSES.keys():
        rest = name.rstrip("+").removeprefix(f"{option}.").removeprefix("init_args.")
        if name.startswith(f"{option}.") and rest not in ("class_path", "init_args", "help"):
            return option, rest.partition(".")[0]
    return None


def _chosen(items: Sequence[Item], command: Command) -> dict[str, type]:
    """The class that each option names or has by default."""
    found: dict[str, type] = {}
    named = {item.name.rstrip("+").removesuffix(".class_path"): item.value for item in reversed(items)}
    defaults = command.parser.get_defaults()
    for option in CLASSES:
        value = unquoted(named.get(option)) or defaults.get(option)
        path = value.get("class_path") if isinstance(value, Mapping) else getattr(value, "class_path", value)
        with suppress(Exception):  # a user's module can fail in any way
            if (kind := find_class(str(path), kinds_of(command.hint(option)))) is not None:
                found[option] = kind
    return found


# Errors


def _first(items: Iterable[Item], chosen: Mapping[str, type], command: Command) -> InputError | None:
    """The error of the first wrong option; None if no error is found."""
    errors = (_wrong(item, chosen, command) for item in items)
    return next((error for error in errors if error is not None), None)


def _wrong(item: Item, chosen: Mapping[str, type], command: Command) -> InputError | None:
    """The error of an option; None if no error is found."""
    name = item.name.rstrip("+")
    if name in FLAGS:
        return None
    if name in command.links:
        return linked(name, command.links[name], command.known)
    if name.endswith(".help"):
        return _wrong_class(name, item.value, name.removesuffix(".help"), command)
    if item.value is None and item.written:
        return InputError(name, None, "needs a value")
    if (owner := _owner(name, command)) is not None:
        return _wrong_argument(item, *owner, chosen, command)
    if name == "config" or is_group(name, command.known):
        value = item.read
        if item.written and os.path.isfile(str(value)):
            return None
        if not isinstance(value, dict) or _is_word(value):
            return no_mapping(name, "null" if value is None else item.value)
        group = "" if name == "config" else f"{name}."
        return _first(items_of(value, group, command.known), chosen, command)
    if name.endswith(".init_args"):
        return None if takes(dict, item.value, item.written) else no_value(name, item.value, [], TYPES["dict"])
    if name.endswith(".class_path"):
        name = name.removesuffix(".class_path")
    hint = command.hint(name)
    if hint is None:
        return no_option(name, command.known)
    return _wrong_value(name, item, hint, command)


def _wrong_value(name: str, item: Item, hint: Any, command: Command) -> InputError | None:
    if takes(hint, item.value, item.written):
        return None
    value = item.read
    kinds = kinds_of(hint)
    if not kinds:
        return no_value(name, str(value), words_of(hint), expected(words_of(hint), types_of(hint)))
    for entry in value if isinstance(value, list) and value else [value]:
        if (error := _wrong_class(name, entry, name, command)) is not None:
            return error
    return None


def _wrong_class(name: str, value: Any, option: str, command: Command) -> InputError | None:
    """The error of an option that should name a class; None if no error is found."""
    hint, known = command.hint(option), CLASSES.get(option, [])
    path = value.get("class_path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        return no_class(name, str(value if path is None else path), known)
    try:
        kind = find_class(path, kinds_of(hint))
    except ModuleNotFoundError as error:
        return InputError(name, None, f"there is no module {error.name}")
    except Exception as error:  # a user's module can fail in any way
        return InputError(name, path, f"cannot be imported ({type(error).__name__}: {first_line(error)})")
    if kind is None:
        return no_class(name, path, known)
    given = value.get("init_args") if isinstance(value, dict) else None
    arguments = (Item(f"{option}.{key}", one, False) for key, one in (given or {}).items())
    return _first(arguments, {option: kind}, command)


def _wrong_argument(
    item: Item, option: str, key: str, chosen: Mapping[str, type], command: Command
) -> InputError | None:
    """The error of an argument of a class; None if no error is found."""
    kind = chosen.get(option)
    if kind is None:
        return InputError(f"{option}.{key}", None, f"needs a class, {Given(option, 'NAME')}")
    arguments = arguments_of(kind)
    if key not in arguments:
        return no_option(f"{option}.{key}", command.known)
    hint = arguments[key][0]
    if takes(hint, item.value, item.written):
        return None
    words = words_of(hint)
    return no_value(f"{option}.{key}", str(item.read), words, expected(words, types_of(hint)))


def _absent(names: set[str], chosen: Mapping[str, type], command: Command) -> InputError | None:
    """The error of missing required options; None if none is missing."""
    lacking = [one.dest for one in command.parser._actions if one.required and one.dest not in names]
    if lacking:
        return InputError("", None, f"{' and '.join(str(Given(name)) for name in lacking)}: required")
    for option, kind in chosen.items():
        given = {owner[1] for name in names if (owner := _owner(name, command)) is not None and owner[0] == option}
        needed = [name for name, (_, required) in arguments_of(kind).items() if required and name not in given]
        if needed and option in names:
            return InputError(
                option, kind.__name__, f"needs {', '.join(str(Given(f'{option}.{name}')) for name in needed)}"
            )
    return None


def _is_word(value: Mapping[str, Any]) -> bool:
    """Whether YAML read `{name:value}`, without a space, as a mapping whose key is `name:value`."""
    return any(":" in str(name) and one is None for name, one in value.items())
