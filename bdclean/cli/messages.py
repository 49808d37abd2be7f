"""What is wrong with an option, in words of this field."""

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
"""Types, and what a user writes for them."""


DECIDED = "the labelled images decide it"
"""Why an option cannot be given that is not another one's."""


def no_option(name: str, known: Options, advice: str = "") -> InputError:
    """The error that there is no option of a name.

    Args:
        name: What was given, without dashes.
        known: The options that there are.
        advice: What to do if none of them is like it.
    """
    return InputError(name, None, f"no such option{suggestion(name, known.everything, '--') or advice}")


def no_class(option: str, name: str, names: Sequence[str]) -> InputError:
    """The error that an option does not take a class.

    Args:
        option: Without dashes.
        name: What was given.
        names: The classes that there are; none if they are not known.
    """
    listed = f"; there are {', '.join(names)}" if names else ""
    return InputError(option, name, f"no such class{suggestion(name, names) or listed}")


def no_value(option: str, value: str, choices: Sequence[str], expected: str) -> InputError:
    """The error that an option does not take a value.

    Args:
        option: Without dashes.
        value: What was given.
        choices: Words that it takes, for a suggestion.
        expected: What it takes, those words among it.
    """
    close = suggestion(value, choices)
    return InputError(option, value, f"no such value{f'{close} Expected' if close else '; expected'} {expected}")


def no_mapping(option: str, value: object) -> InputError:
    """The error that what should be a group of options is none."""
    return no_value(option, str(value), [], f"{TYPES['dict']}, or a file with one")


def linked(option: str, source: str, known: Options) -> InputError:
    """The error that an option is set by another one, or by the images themselves."""
    return InputError(option, None, f"give {Given(source)} instead" if source in known.names else DECIDED)


def expected(choices: Sequence[str], types: Sequence[str]) -> str:
    """What an option takes, as a user would say it.

    Args:
        choices: Words.
        types: Types, by the names that the parser has for them.
    """
    words = [", ".join(choices)] if choices else []
    words += [TYPES.get(kind, "") for kind in types]
    return " or ".join(dict.fromkeys(word for word in words if word))
