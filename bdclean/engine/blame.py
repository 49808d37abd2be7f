"""Turn errors of Lightning's Trainer into one line that names the option and its value."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from bdclean.engine.failures import missing
from bdclean.errors import Given, InputError

OF_LIGHTNING = (ValueError, TypeError, AttributeError, ImportError, MisconfigurationException)
"""Errors that the constructor of Lightning's Trainer raises for wrong options."""
OF_KINDS = {
    "loggers": ("logger",),
    "callbacks": ("callbacks",),
    "profilers": ("profiler",),
    "plugins": ("plugins", "precision"),
    "strategies": ("strategy",),
    "accelerators": ("accelerator",),
}
"""Options of Lightning's Trainer that choose a class, by the folder in Lightning that defines the class."""
FOLDER = re.compile(rf"lightning[\\/](?:pytorch|fabric)[\\/]({'|'.join(OF_KINDS)})[\\/]")
"""Path of a file that defines such a class."""
CALLED = {"max_time": "Timer(duration="}
"""Names of options in Lightning's messages that differ from the options' names."""


def blamed(error: BaseException, asked: Mapping[str, Any]) -> InputError:
    """Find the option that an error of Lightning's Trainer is about.

    Args:
        error: The error that the constructor raised.
        asked: Options of the Trainer that differ from their defaults.
    """
    text = missing(re.sub(r"<([\w.]+) object at 0x\w+>", r"\1", str(error)))
    plain = {name: value for name, value in asked.items() if isinstance(value, (str, int, float, list))}
    named = [name for name in plain if re.search(rf"\b{name}\b", str(error)) or CALLED.get(name, name) in str(error)]
    valued = [name for name, value in plain.items() if isinstance(value, str) and value and value in str(error)]
    # Take the first one: messages also name options to use instead.
    options = (valued or named or _raised(error, plain))[:1] or plain
    first, *others = [Given(f"trainer.{name}", asked[name]) for name in options] or [Given("trainer")]
    return InputError(*first, text, *others)


def _raised(error: BaseException, asked: Mapping[str, Any]) -> list[str]:
    """The options in `asked` that chose the class that raised an error."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    kinds = [found[1] for file in files if (found := FOLDER.search(file))]
    options = [option for kind in reversed(kinds) for option in OF_KINDS[kind]]
    return [option for option in options if option in asked]
