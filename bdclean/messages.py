"""What the parser has against an option, in words of this field: jsonargparse speaks of types of Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence

from bdclean.options import SUBCOMMANDS, Options, options, suggestion

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
        (r"argument --(\S+): expected one argument", lambda match: f"--{match[1]}: needs a value"),
        (r"File does not exist: '?([^']*)'?", lambda match: f"--config {match[1]}: no such file"),
        (
            r"--(\S+)\.help: Expected a dot import path string: (\S+)",
            lambda match: _no_class(match[1], match[2], classes),
        ),
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


def _no_class(option: str, name: str, classes: Mapping[str, Sequence[str]]) -> str:
    names = classes.get(option, [])
    listed = f"; there are {', '.join(names)}" if names else ""
    return f"--{option} {name}: no such class{suggestion(name, names) or listed}"


def _value(text: str, known: Options, classes: Mapping[str, Sequence[str]]) -> str:
    """What is wrong with the value of an option, or with a class and its arguments."""
    keys = re.findall(r'Parser key "([\w.+]+)":', text)
    if not keys:
        return text
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
    if wrong := re.search(r"Expected a dot import path string: (\S+)", reason):
        return _no_class(option, wrong[1], classes)
    given = nested or re.search(r"(G)(?:iven|ot) value: (.*?)(?: - Expected|\. Got value|$)", reason)
    if wrong := re.search(r"No module named '([\w.]+)'", reason):
        return f"--{option}: there is no module {wrong[1]}"
    expected = _expected(re.split(r"Given value type:|\. Got value:", reason)[0])
    if given is None or not expected:
        return f"--{option}: {reason}"
    name, value = (f"{option}.{nested[1]}" if nested else option), given[2]
    if nested and name not in known.everything:
        return _no_option(name, known)
    close = suggestion(value, _choices(reason))
    return f"--{name} {value}: no such value{f'{close} Expected' if close else '; expected'} {expected}"


def _expected(reason: str) -> str:
    """The types that a message expects, as a user would say them."""
    words = [", ".join(_choices(reason))] if _choices(reason) else []
    for kind in re.findall(r"Expected a <class '([\w.]+)'>", reason):
        fixed = re.search(r"tuple\[([\w, ]+)\]", reason) if kind == "tuple" else None
        words.append(f"{len(fixed[1].split(','))} numbers, [a, b]" if fixed else TYPES.get(kind, ""))
    return " or ".join(dict.fromkeys(word for word in words if word))


def _choices(reason: str) -> list[str]:
    """The values of a Literal, or of several."""
    found = re.findall(r"Expected a typing\.Literal(\[.*?\])", reason)
    return list(dict.fromkeys(str(value) for values in found for value in ast.literal_eval(values)))
