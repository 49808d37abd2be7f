"""Old names of options, which still work and print one line, and short names of methods."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from bdclean.registry import METHOD_ALIASES, RENAMED_ATTACK_OPTIONS

OPTIONS = {
    "method.least": "method.stop_accuracy",
    "method.first": "method.first_phase_fraction",
    "method.first_lr": "method.first_phase_lr",
    **{f"data.attack.{old}": f"data.attack.{new}" for old, new in RENAMED_ATTACK_OPTIONS.items()},
}
"""Old name of each renamed option to its new one."""


def current(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with today's names, those in its configuration files included.

    Args:
        words: Those of the command line after the program's name.

    Returns:
        The words, and a line for each old name.
    """
    found: list[str] = []
    notices: dict[str, None] = {}
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        before = words[place - 1] if place else ""
        if before in ("--method", "--method.class_path", "--method.help"):
            found.append(METHOD_ALIASES.get(word, word))
        elif before in ("--config", "-c"):
            found.append(_file(word, notices))
        elif name == "--config" and equals:
            found.append(f"--config={_file(value, notices)}")
        elif name.startswith("--"):
            new = _option(name[2:], notices)
            short = METHOD_ALIASES.get(value, value) if name in ("--method", "--method.help") else value
            found.append(f"--{new}{equals}{short}")
        else:
            found.append(word)
    return found, list(notices)


def announced(words: Sequence[str]) -> list[str]:
    """The same words, after a line on standard error for each old name."""
    found, notices = current(words)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for line in notices:
            print(f"bdclean: {line}", file=sys.stderr)
    return found


def _option(name: str, notices: dict[str, None]) -> str:
    """The current name of an option, without dashes."""
    new = OPTIONS.get(name.replace(".init_args.", "."), name)
    if new != name and name not in OPTIONS.values():
        notices[f"--{name} is deprecated: use --{new}"] = None
    return new


def _file(path: str, notices: dict[str, None]) -> str:
    """A configuration file, or what it holds with current names if it has old ones."""
    import yaml  # here: what is answered at once needs no other package

    if not os.path.isfile(path):
        return path
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        # The parser reports what is wrong with it.
        return path
    before = len(notices)
    renamed = _renamed(content, "", notices)
    short = isinstance(content, dict) and _shortened(renamed)
    return yaml.safe_dump(renamed, sort_keys=False) if short or len(notices) > before else path


def _renamed(content: Any, prefix: str, notices: dict[str, None]) -> Any:
    """Options of a configuration file with current names."""
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
    """Replace the short name of a method in a configuration, in place, and say whether there was one."""
    method = content.get("method")
    if isinstance(method, str) and method in METHOD_ALIASES:
        content["method"] = METHOD_ALIASES[method]
        return True
    if isinstance(method, dict) and method.get("class_path") in METHOD_ALIASES:
        method["class_path"] = METHOD_ALIASES[method["class_path"]]
        return True
    return False
