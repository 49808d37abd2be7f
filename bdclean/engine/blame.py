"""What Lightning's Trainer has against an option, in one line that names the option and its value."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from bdclean.engine.failures import missing
from bdclean.errors import Given, InputError

OF_LIGHTNING = (ValueError, TypeError, AttributeError, ImportError, MisconfigurationException)
"""What the constructor of Lightning's Trainer raises where an option is wrong."""
OF_KINDS = {
    "loggers": ("logger",),
    "callbacks": ("callbacks",),
    "profilers": ("profiler",),
    "plugins": ("plugins", "precision"),
    "strategies": ("strategy",),
    "accelerators": ("accelerator",),
}
"""Folders of Lightning's, and the options of its Trainer that choose among the classes in them."""
FOLDER = re.compile(rf"lightning[\\/](?:pytorch|fabric)[\\/]({'|'.join(OF_KINDS)})[\\/]")
"""Where a class of Lightning's is."""
CALLED = {"max_time": "Timer(duration="}
"""What Lightning's messages call options of its Trainer, where that is not their name."""


def blamed(error: BaseException, asked: Mapping[str, Any]) -> InputError:
    """What Lightning's Trainer has against an option.

    Args:
        error: What its constructor raised.
        asked: The options of the Trainer that are not its defaults.
    """
    text = missing(re.sub(r"<([\w.]+) object at 0x\w+>", r"\1", str(error)))
    plain = {name: value for name, value in asked.items() if isinstance(value, (str, int, float, list))}
    named = [name for name in plain if re.search(rf"\b{name}\b", str(error)) or CALLED.get(name, name) in str(error)]
    valued = [name for name, value in plain.items() if isinstance(value, str) and value and value in str(error)]
    # Messages name other options too: those to be given instead.
    options = (valued or named or _raised(error, plain))[:1] or plain
    first, *others = [Given(f"trainer.{name}", asked[name]) for name in options] or [Given("trainer")]
    return InputError(*first, text, *others)


def _raised(error: BaseException, asked: Mapping[str, Any]) -> list[str]:
    """The options that chose the class that raised an error, if they were asked for."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    kinds = [found[1] for file in files if (found := FOLDER.search(file))]
    options = [option for kind in reversed(kinds) for option in OF_KINDS[kind]]
    return [option for option in options if option in asked]
