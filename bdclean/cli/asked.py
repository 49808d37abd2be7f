"""Values of options before the command line is parsed, as the defaults of other options depend on them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import yaml

from bdclean.errors import InputError


class Asked:
    """The options on a command line and in its configuration files.

    Args:
        arguments: Words of the command line.

    Raises:
        InputError: If a configuration file cannot be read.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.contents = _contents_of(self.arguments)

    def __call__(self, key: str) -> Any:
        """The value of an option, by its name without dashes; None if the user did not set it."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument(f"--{key}", dest="value", nargs="?")
        values = [parser.parse_known_args(self.arguments)[0].value]
        for content in self.contents:
            for part in key.split("."):
                content = content.get(part) if isinstance(content, dict) else None
            values.append(content)
        return next((value for value in values if value is not None), None)


def unquoted(value: Any) -> Any:
    """Parse the value of an option if it is a mapping or a list in YAML."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        # The parser reports the error.
        return value


def _contents_of(arguments: Sequence[str]) -> list[Any]:
    """Contents of the configuration files on the command line; the last one comes first, as it takes precedence."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[], nargs="?")
    contents = []
    for path in reversed(parser.parse_known_args(list(arguments))[0].config):
        if path is not None and os.path.lexists(path):
            try:
                with open(path, encoding="utf-8") as file:
                    content = yaml.safe_load(file)
            except OSError as error:
                raise InputError("config", path, f"cannot be read ({error.strerror})") from error
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise InputError("config", path, f"not readable as YAML ({error})") from error
            if not isinstance(content, dict):
                raise InputError("config", path, "holds no options, name: value")
            contents.append(content)
        elif path is not None and path.startswith("{") and not isinstance(unquoted(path), dict):
            raise InputError("config", path, "not readable as YAML")
    return contents
