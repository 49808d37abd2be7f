"""The options that the user gave, read before the parser runs.

Defaults of other options depend on some of them: the checkpoint, and the classes that options name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from bdclean.cli.words import given_options
from bdclean.errors import InputError


class UserOptions:
    """Options on the command line, in configuration files and in environment variables; earlier ones override later.

    Args:
        words: The words of the command line.
        subcommand: The subcommand; empty if there is none.

    Attributes:
        words: The words of the command line.
        subcommand: The subcommand.
        written: Names and values on the command line, in order; None for an option without a value.
        files: Options for the subcommand in configuration files; the last file comes first, as it takes precedence.
        variables: Names and values in environment variables.

    Raises:
        InputError: If a configuration file cannot be read.
    """

    def __init__(self, words: Sequence[str], subcommand: str) -> None:
        self.words = list(words)
        self.subcommand = subcommand
        self.written = list(_written(self.words))
        self.files = [_section(content, subcommand) for content in _contents_of(self.written)]
        self.variables = list(_variables(subcommand))

    def get(self, name: str) -> Any:
        """The value of an option, by its name without dashes; None if the user did not set it."""
        given = [*reversed(self.written), *(("", content) for content in self.files), *self.variables]
        return next((value for value in _values(given, name) if value is not None), None)


def unquoted(value: Any) -> Any:
    """Parse the value of an option if it is a mapping or a list in YAML."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        # The parser reports the error.
        return value


def _values(given: Iterable[tuple[str, Any]], name: str) -> Iterator[Any]:
    """Yield the values of an option, given directly or in the mapping of a group."""
    for owner, value in given:
        if owner == name:
            yield value
        elif not owner or name.startswith(f"{owner}."):
            yield _inside(unquoted(value), name.removeprefix(owner).removeprefix("."))


def _inside(content: Any, name: str) -> Any:
    """The value of a dotted name in nested mappings; None if it is missing."""
    if not isinstance(content, dict):
        return None
    group, _, rest = name.partition(".")
    return content[name] if name in content else _inside(content.get(group), rest) if rest else None


def _written(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for name, value in given_options(words):
        # A following option is not a value.
        lacks = value is None or (value.startswith("--") and " " not in value and f"--{name}={value}" not in words)
        yield name, None if lacks else value


def _variables(subcommand: str) -> Iterator[tuple[str, str]]:
    prefix = f"BDCLEAN_{subcommand}__".upper()
    for name, value in os.environ.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix).lower().replace("__", "."), value


def _section(content: dict[str, Any], subcommand: str) -> dict[str, Any]:
    """The options for a subcommand, as a file that is given before the subcommand has a section for each."""
    section = content.get(subcommand)
    return section if isinstance(section, dict) else content


def _contents_of(written: Sequence[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    """Yield the configurations on the command line, files or YAML itself, the last one first."""
    for name, value in reversed(written):
        if name != "config" or value is None:
            continue
        if not os.path.lexists(value):
            content = _parsed(value, value)
            if isinstance(content, dict):
                yield content
            elif value.startswith("{"):
                raise InputError("config", value, "not readable as YAML")
            # Otherwise the file does not exist, which the parser reports.
            continue
        try:
            with open(value, encoding="utf-8") as file:
                content = _parsed(file.read(), value)
        except OSError as error:
            raise InputError("config", value, f"cannot be read ({error.strerror})") from error
        if not isinstance(content, dict):
            raise InputError("config", value, "holds no options in the form `name: value`")
        yield content


def _parsed(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("config", name, f"not readable as YAML ({error})") from error
