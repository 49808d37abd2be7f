"""The options that were given, wherever they stand: on the command line, in variables, in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdclean.cli.options import Options
from bdclean.cli.user_options import UserOptions, unquoted

FLAGS = ("help", "version", "print_config", "list")
"""Options that need no value."""


@dataclass(frozen=True)
class Item:
    """An option that was given.

    Attributes:
        name: Its name, without dashes.
        value: Its value; None if there is none.
        written: Whether the value is a word, which the parser reads as YAML.
    """

    name: str
    value: Any
    written: bool

    @property
    def read(self) -> Any:
        """The value as the parser reads it, where that is a list or a mapping."""
        return unquoted(self.value) if self.written else self.value


def all_items(user: UserOptions, known: Options) -> list[Item]:
    """Everything that the user gave, words of the command line first."""
    words = [Item(name, value, True) for name, value in (*user.written, *user.variables)]
    return [*words, *(item for content in user.files for item in items_of(content, "", known))]


def items_of(content: Mapping[str, Any], group: str, known: Options) -> Iterator[Item]:
    """The options in a mapping.

    Args:
        content: Names to values, or to the options of a group.
        group: What stands before the names, with a dot; empty for nothing.
        known: The options that there are.
    """
    for key, value in content.items():
        name = f"{group}{key}"
        if isinstance(value, dict) and is_group(name, known):
            yield from items_of(value, f"{name}.", known)
        else:
            yield Item(name, value, False)


def is_group(name: str, known: Options) -> bool:
    """Whether a name is that of a group of options, and not of a class with options."""
    return name not in known.classes and any(other.startswith(f"{name}.") for other in known.names)


def stray_word(words: Sequence[str], subcommand: str) -> str | None:
    """The first word that is no option, no value of one, and not the subcommand, if there is one."""
    before = ""
    for word in words:
        is_value = before.startswith("-") and "=" not in before and before.lstrip("-") not in FLAGS
        if not (word.startswith("-") or is_value or word == subcommand):
            return word
        before = "" if is_value and not word.startswith("--") else word
    return None
