"""Error messages about options."""

from __future__ import annotations

from collections.abc import Sequence

from bdclean.cli.options import Options
from bdclean.errors import Given, InputError
from bdclean.suggestions import suggestion

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "dict": "a mapping, {name: value}",
    "list": "a list",
    "pair": "2 numbers, [a, b]",
}
"""Descriptions of types in messages."""


DECIDED = "the labelled images determine it"
"""Reason why an option cannot be given, if no other option sets it."""


def no_option(name: str, known: Options, advice: str = "") -> InputError:
    """The error of an option that does not exist.

    Args:
        name: The given name, without dashes.
        known: The existing options.
        advice: Advice if none of them has a similar name.
    """
    return InputError(name, None, f"no such option{suggestion(name, known.everything, '--') or advice}")


def no_class(option: str, name: str, names: Sequence[str]) -> InputError:
    """The error of a class that an option does not accept.

    Args:
        option: The option, without dashes.
        name: The given class.
        names: Names of the accepted classes; empty if unknown.
    """
    listed = f"; there are {', '.join(names)}" if names else ""
    return InputError(option, name, f"no such class{suggestion(name, names) or listed}")


def no_value(option: str, value: str, choices: Sequence[str], expected: str) -> InputError:
    """The error of a value that an option does not accept.

    Args:
        option: The option, without dashes.
        value: The given value.
        choices: Accepted words, for a suggestion.
        expected: Description of all accepted values.
    """
    close = suggestion(value, choices)
    return InputError(option, value, f"no such value{f'{close} Expected' if close else '; expected'} {expected}")


def no_mapping(option: str, value: object) -> InputError:
    """The error of a value that should be a mapping of options."""
    return no_value(option, str(value), [], f"{TYPES['dict']}, or a file with one")


def linked(option: str, source: str, known: Options) -> InputError:
    """The error of an option that is set by another option, or by the images."""
    return InputError(option, None, f"give {Given(source)} instead" if source in known.names else DECIDED)


def expected(choices: Sequence[str], types: Sequence[str]) -> str:
    """Describe the values that an option accepts.

    Args:
        choices: Accepted words.
        types: Accepted types, as named in `TYPES`.
    """
    words = [", ".join(choices)] if choices else []
    words += [TYPES.get(kind, "") for kind in types]
    return " or ".join(dict.fromkeys(word for word in words if word))
