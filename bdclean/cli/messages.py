"""What the parser has against an option, in words of this field: jsonargparse speaks of types of Python."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from bdclean.cli.options import SUBCOMMANDS, Options, options
from bdclean.errors import InputError
from bdclean.suggestions import suggestion

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "dict": "a mapping, {name: value}",
    "collections.abc.Mapping": "a mapping, {name: value}",
    "list": "a list",
    "tuple": "a list",
    "pair": "2 numbers, [a, b]",
    "collections.abc.Sequence": "a list",
    "collections.abc.Iterable": "a list",
}
"""Types in the parser's messages, and what a user writes for them."""


def readable(text: str, subcommand: str, classes: Mapping[str, Sequence[str]]) -> str:
    """A message of jsonargparse in one line, with options as the user writes them.

    Args:
        text: The message, in one line.
        subcommand: Which was asked for; empty if none was.
        classes: Options that name a class, and the classes that there are.
    """
    known = options(subcommand) if subcommand in SUBCOMMANDS else Options(frozenset())
    parts: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
        (r"arguments are required: ([\w., ]+)$", lambda match: _required(match[1])),
        (r"unrecognized arguments: (--[^\s=]+)", lambda match: _no_option(match[1][2:], known)),
        (r"unrecognized arguments: (.*)", lambda match: f"{match[1]}: not expected here"),
        (r"(?:Subcommand|Group) '\w+' does not accept option '([^']+)'", lambda match: _no_option(match[1], known)),
        (r"argument (?:-\w/)?--(\S+): expected one argument", lambda match: f"--{match[1]}: needs a value"),
        (r"File does not exist: '?([^']*)'?", lambda match: f"--config {match[1]}: no such file"),
        (r"Unexpected config: ?(.*)", lambda match: _no_mapping("config", match[1])),
        (
            r"Unable to load config '.*?' - (Parser key \"\w+\..*)",
            lambda match: readable(match[1], subcommand, classes),
        ),
        (r"Parser key \"(\w+)\": Unable to load config \"(.*)\"", lambda match: _no_mapping(match[1], match[2])),
        (
            r"Parser key \"(\w+)\": Unable to load config '(.*?)' - (.*)",
            lambda match: f"--{match[1]} {match[2]}: not readable as YAML ({match[3]})",
        ),
        (
            r"--(\S+)\.help: Expected a dot import path string: (\S*)",
            lambda match: str(no_class(f"{match[1]}.help", match[2], classes.get(match[1], []))),
        ),
        (r"Linked \"([\w.]+)\" must be given via \"([\w.]+)\"", lambda match: _linked(match[1], match[2], known)),
    )
    for pattern, say in parts:
        if match := re.search(pattern, text):
            return say(match)
    return _value(text, known, classes)


def _required(names: str) -> str:
    dashed = [f"--{name.partition('.')[2]}" for name in names.split(", ")]
    return f"{' and '.join(dashed)}: required"


def _no_option(name: str, known: Options) -> str:
    return f"--{name}: no such option{suggestion(name, known.everything, '--')}"


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


def _no_mapping(option: str, value: str) -> str:
    return str(no_value(option, value, [], "a mapping, {name: value}, or a file with one"))


def _linked(option: str, source: str, known: Options) -> str:
    """An option that another one sets, or the images themselves."""
    return f"--{option}: " + (f"give --{source} instead" if source in known.names else "the labelled images decide it")


def _value(text: str, known: Options, classes: Mapping[str, Sequence[str]]) -> str:
    """What is wrong with the value of an option, or with a class and its arguments."""
    keys = re.findall(r'Parser key "([\w.+]+)":', text)
    if not keys:
        return text
    if len(keys) > 1 and f"{keys[1]}.".startswith(f"{keys[0]}."):
        # The names of groups stand before their options already.
        keys = keys[1:]
    # Of several types that an option may have, each says the same.
    keys = [key for key, _ in itertools.groupby(keys)]
    option = ".".join(keys)
    # The innermost message; behind it those of the types around it go on.
    reason = re.split(r'Parser key "[\w.+]+":', text)[-1].strip()
    nested = re.search(r"NestedArg\(key='([\w.]+)', val='(.*?)'\)", reason) if len(keys) == 1 else None
    if wrong := re.search(r"Option '(\S+)' is not accepted", reason):
        return _no_option(f"{option}.{wrong[1]}", known)
    if wrong := re.search(r"class_path '[\w.]*?(\w+)': the following arguments are required: ([\w, ]+\w)", reason):
        return f"--{option} {wrong[1]}: needs {', '.join(f'--{option}.{name}' for name in wrong[2].split(', '))}"
    if nested and "is abstract" in reason:
        return f"--{option}.{nested[1]}: needs a class, --{option} NAME"
    if wrong := re.search(r"No module named '([\w.]+)'", reason):
        return f"--{option}: there is no module {wrong[1]}"
    outer = re.search(r"Given value: (.*?)(?: - Expected|$)", reason)
    given = outer or re.search(r"[Gg]ot value:\s?(.*?)(?:\. Got value|$)", reason)
    value = nested[2] if nested else given[1] if given else ""
    if nested and nested[1] == "class_path":
        return str(no_class(option, nested[2], classes.get(option, [])))
    if nested and nested[1] == "init_args":
        return str(no_value(f"{option}.init_args", nested[2], [], TYPES["dict"]))
    if not nested and re.search(r"subclass of|import path|not iterable|to be a function", reason):
        named = re.search(r"import path string: (\S+)|Not a valid subclass of \w+\. Got value: (\S+)", reason)
        path = re.search(r"class_path'?[:=] ?'?([^',})]+)", value)
        name = next((found for found in (*(named.groups() if named else ()), path and path[1]) if found), value)
        return str(no_class(option, name, classes.get(option, [])))
    expected = _expected(re.split(r"Given value type:" if outer else r"\. Got value:", reason)[0])
    if not (nested or given) or not expected:
        return f"--{option}: {reason}"
    name = f"{option}.{nested[1]}" if nested else option
    if nested and name not in known.everything:
        return _no_option(name, known)
    return str(no_value(name, value, _choices(reason), expected))


def expected(choices: Sequence[str], types: Sequence[str]) -> str:
    """What an option takes, as a user would say it.

    Args:
        choices: Words.
        types: Types, by the names that the parser has for them.
    """
    words = [", ".join(choices)] if choices else []
    words += [TYPES.get(kind, "") for kind in types]
    return " or ".join(dict.fromkeys(word for word in words if word))


def _expected(reason: str) -> str:
    """The types that a message expects, as a user would say them."""
    types = re.findall(r"Expected a <class '([\w.]+)'>", reason)
    if re.search(r"tuple\[\w+, \w+\]|a tuple with 2 elements", reason):
        types = [*(kind for kind in types if kind != "tuple"), "pair"]
    return expected(_choices(reason), types)


def _choices(reason: str) -> list[str]:
    """The values of a Literal, or of several."""
    found = re.findall(r"Expected a typing\.Literal(\[.*?\])", reason)
    return list(dict.fromkeys(str(value) for values in found for value in ast.literal_eval(values)))
