"""The given options, from the command line, environment variables and configuration files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdclean.cli.options import Options
from bdclean.cli.user_options import UserOptions, unquoted

FLAGS = ("help", "version", "print_config", "list")
"""Options without a value."""


@dataclass(frozen=True)
class Item:
    """A given option.

    Attributes:
        name: Its name, without dashes.
        value: Its value; None if it has none.
        written: Whether the value is a word, which the parser reads as YAML.
    """

    name: str
    value: Any
    written: bool

    @property
    def read(self) -> Any:
        """The value, with lists and mappings parsed."""
        return unquoted(self.value) if self.written else self.value


def all_items(user: UserOptions, known: Options) -> list[Item]:
    """All given options of a subcommand: those on the command line, in files, and in variables, as they override."""
    written, variables = ([Item(name, value, True) for name, value in one] for one in (user.written, user.variables))
    return [*written, *(item for content in user.files for item in items_of(content, "", known)), *variables]


def items_of(content: Mapping[str, Any], group: str, known: Options) -> Iterator[Item]:
    """The options in a mapping.

    Args:
        content: Values, or mappings of the options of a group, by name.
        group: Prefix of the names, with a dot; may be empty.
        known: The existing options.
    """
    for key, value in content.items():
        name = f"{group}{key}"
        if isinstance(value, dict) and is_group(name, known):
            yield from items_of(value, f"{name}.", known)
        else:
            yield Item(name, value, False)


def is_group(name: str, known: Options) -> bool:
    """Whether a name is a group of options, and not an option that names a class."""
    return name not in known.classes and any(other.startswith(f"{name}.") for other in known.names)


def stray_word(words: Sequence[str], subcommand: str) -> str | None:
    """The first word that is not an option, a value of an option or the subcommand; None without one."""
    before = ""
    for word in words:
        is_value = before.startswith("-") and "=" not in before and before.lstrip("-") not in FLAGS
        if not (word.startswith("-") or is_value or word == subcommand):
            return word
        before = "" if is_value and not word.startswith("--") else word
    return None
