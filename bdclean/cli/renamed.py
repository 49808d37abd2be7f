"""Old names of options, which still work and print a deprecation line, and other names of classes."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from bdclean.cli.options import SUBCOMMANDS, Classes, options
from bdclean.registry import ALIASES, RENAMED_ATTACK_OPTIONS

OPTIONS = {
    "method.least": "method.stop_accuracy",
    "method.first": "method.first_phase_fraction",
    "method.first_lr": "method.first_phase_lr",
    "method.aimed_lr": "method.unlearning_lr",
    "method.adversarial": "method.adversarial_weight",
    "method.shared": "method.shared_weight",
    "method.unlearn": "method.unlearn_weight",
    **{f"data.attack.{old}": f"data.attack.{new}" for old, new in RENAMED_ATTACK_OPTIONS.items()},
}
"""New name of each renamed option, by its old name."""
NAMING = {f"{option}{ending}": option for option in ALIASES for ending in ("", ".class_path", ".help")}
"""Options whose value is the name of a class, without dashes, and the option of the class."""


def current(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old names in a command line and in its configuration files.

    Args:
        words: The command line, without the program's name.

    Returns:
        The words, and a line for each old name.
    """
    found: list[str] = []
    notices: dict[str, None] = {}
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        before = words[place - 1] if place else ""
        if before.removeprefix("--") in NAMING:
            found.append(_class(before.removeprefix("--"), word))
        elif before in ("--config", "-c"):
            found.append(_file(word, notices))
        elif name == "--config" and equals:
            found.append(f"--config={_file(value, notices)}")
        elif name.startswith("--"):
            new = _option(name[2:], notices)
            found.append(f"--{new}{equals}{_class(name[2:], value)}")
        else:
            found.append(word)
    return found, list(notices)


def announced(words: Sequence[str]) -> list[str]:
    """Replace old names as `current`, also in environment variables, and print a line on standard error for each.

    Environment variables of options of classes become words after the subcommand, as the parser does not read them.
    """
    found, notices = current(words)
    if (subcommand := next((word for word in found if word in SUBCOMMANDS), None)) is not None:
        place = found.index(subcommand) + 1
        variables, more = _variables(subcommand, found)
        found[place:place] = variables
        notices += more
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for line in notices:
            print(f"bdclean: {line}", file=sys.stderr)
    return found


def _variables(subcommand: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of classes in environment variables, as words; old names in other variables are replaced in place.

    Args:
        subcommand: The subcommand.
        words: The command line, which may have some of these words already.

    Returns:
        The missing words, and a line for each old name.
    """
    classes = options(subcommand).classes
    found: list[str] = []
    notices: dict[str, None] = {}
    prefix = f"BDCLEAN_{subcommand}__".upper()
    for variable, value in list(os.environ.items()):
        name = variable.removeprefix(prefix).lower().replace("__", ".")
        option = next((one for one in classes if name.startswith(f"{one}.")), None)
        if not variable.startswith(prefix):
            continue
        if name == "config":
            os.environ[variable] = _file(value, notices)
        elif name in ALIASES:
            os.environ[variable] = _class(name, value)
        elif option is not None:
            new = _option(name, {})
            word = f"--{_spelled(new, option, classes[option])}={value}"
            if word in words:
                continue
            found.append(word)
            if new != name:
                notices[f"{variable} is deprecated: use {prefix}{new.replace('.', '__').upper()}"] = None
    return found, list(notices)


def _spelled(name: str, option: str, known: Classes) -> str:
    """The name of an option of a class in its own spelling, from a name in lower case."""
    spellings = {f"{option}.{one}".lower(): f"{option}.{one}" for one in known.parameters or ()}
    return spellings.get(name, name)


def _class(name: str, value: str) -> str:
    """The value of an option, without dashes, with the name of a class for another name of it."""
    return ALIASES[NAMING[name]].get(value, value) if name in NAMING else value


def _option(name: str, notices: dict[str, None]) -> str:
    """The current name of an option, without dashes."""
    new = OPTIONS.get(name.replace(".init_args.", "."), name)
    if new != name and name not in OPTIONS.values():
        notices[f"--{name} is deprecated: use --{new}"] = None
    return new


def _file(path: str, notices: dict[str, None]) -> str:
    """A configuration file, or its content with current names if it has old ones."""
    import yaml  # here, as help and version need no other package

    if not os.path.isfile(path):
        return path
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        # The parser reports the error.
        return path
    before = len(notices)
    renamed = _renamed(content, "", notices)
    short = isinstance(content, dict) and _shortened(renamed)
    # In braces, by which the parser and its diagnosis recognise options.
    content = yaml.safe_dump(renamed, sort_keys=False, default_flow_style=True, width=math.inf)
    return content if short or len(notices) > before else path


def _renamed(content: Any, prefix: str, notices: dict[str, None]) -> Any:
    """Replace old names in the options of a configuration file."""
    if not isinstance(content, dict):
        return content
    found = {}
    for key, value in content.items():
        whole = f"{prefix}{key}"
        new = _option(whole, notices) if whole.replace(".init_args.", ".") in OPTIONS else whole
        last = str(key) if new == whole else new.rpartition(".")[2]
        found[last if isinstance(key, str) else key] = _renamed(value, f"{whole}.", notices)
    return found


def _shortened(content: dict[str, Any]) -> bool:
    """Replace other names of classes in a configuration, in place; return whether there was one."""
    found = False
    for option, aliases in ALIASES.items():
        owner, key = (content[option], "class_path") if isinstance(content.get(option), dict) else (content, option)
        if isinstance(name := owner.get(key), str) and name in aliases:
            owner[key] = aliases[name]
            found = True
    return found
