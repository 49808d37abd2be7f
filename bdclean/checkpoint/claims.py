"""Check the metadata of untrusted checkpoints: only known names, plain types and values in range."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from typing import Any

from bdclean import escaped
from bdclean.errors import Given, InputError
from bdclean.registry import RENAMED_ATTACK_OPTIONS
from bdclean.resizing import parse

MOST_VALUES = 1000
"""Maximum number of values in an option, including nested containers."""
LARGEST_IMAGE = 800
"""Maximum image size in a file, in pixels; no published classifier uses larger images."""
LARGEST_ARGUMENT = 2**15
"""Maximum of numbers (layers, widths) that a file passes to a network's constructor."""


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _text(value: Any) -> bool:
    # Names of folders may not be UTF-8.
    return isinstance(value, str) and len(value) < 4096 and escaped(value).isprintable()


def _name(value: Any) -> bool:
    return _text(value) and value.isidentifier()


def _channels(value: Any) -> bool:
    finite = isinstance(value, list) and all(type(x) is float and math.isfinite(x) for x in value)
    return finite and len(value) in (1, 3)


def _scalar(value: Any, most: float = 2**63) -> bool:
    # Torch does not accept integers beyond 64 bits; the comparison also refuses inf and nan.
    return value is None or (isinstance(value, (bool, int, float)) and -most <= value < most) or _text(value)


def _plain(value: Any) -> bool:
    # Only one level, as a list can contain itself.
    return len(value) < MOST_VALUES and all(map(_scalar, value)) if isinstance(value, (list, tuple)) else _scalar(value)


def _is_resize(value: Any) -> bool:
    try:
        return isinstance(value, str) and parse(value) is not None
    except ValueError:
        return False


def nested(value: Any) -> bool:
    """Whether a value consists of plain values, lists and dictionaries, within limits and without a class path."""
    waiting = [value]
    for _ in range(MOST_VALUES):
        if not waiting:
            return True
        one = waiting.pop()
        # The command line's parser instantiates dictionaries with a class path.
        if isinstance(one, dict) and all(map(_name, one)) and "class_path" not in one:
            waiting += list(one.values())[:MOST_VALUES]
        elif isinstance(one, (list, tuple)):
            waiting += one[:MOST_VALUES]
        elif not _scalar(one, LARGEST_ARGUMENT):
            return False
    return False


def _options(value: Any) -> bool:
    return isinstance(value, dict) and all(_name(key) and _plain(entry) for key, entry in value.items())


MODEL: dict[str, Callable[[Any], bool]] = {
    "arch": _text,
    "num_classes": _number(2, 100_000),
    "image_size": _number(1, LARGEST_IMAGE),
    "mean": _channels,
    "std": _channels,
    "stem": _optional(lambda value: value in ("photo", "small")),
    "arch_kwargs": _optional(lambda value: isinstance(value, dict) and nested(value)),
}
"""Check of each value that describes the network."""

DATA: dict[str, Callable[[Any], bool]] = {
    "source": _optional(_text),
    "attack": _optional(_name),
    "attack_options": _options,
    "num_held_out": _optional(_number(1, 10**9)),
    "num_val": _optional(_number(1, 10**9)),
    "num_train": _optional(_number(1, 10**9)),
    "image_size": _number(1, LARGEST_IMAGE),
    "resize": _optional(_is_resize),
    "crop_padding": _optional(_number(0, LARGEST_IMAGE)),
    "flip": lambda value: type(value) is bool,
    "seed": _number(0, 2**63),
}
"""Check of each value that describes the images and the attack."""


def with_new_names(data: dict[str, Any]) -> dict[str, Any]:
    """Replace old names of attack options in a checkpoint's description of its images."""
    options = {RENAMED_ATTACK_OPTIONS.get(name, name): value for name, value in data.get("attack_options", {}).items()}
    return data | ({"attack_options": options} if options else {})


def vetted(values: Any, known: dict[str, Callable[[Any], bool]], option: Given, place: str) -> dict[str, Any]:
    """Check values from a file.

    Args:
        values: The values by name.
        known: The check of each known name.
        option: The parameter that named the file, for messages.
        place: The entry of the values in the file, for messages.

    Raises:
        InputError: If a name is unknown, or a value fails its check.
    """
    if not isinstance(values, dict):
        raise InputError(*option, f"{place} is not a dictionary")
    for name, value in values.items():
        if name not in known:
            raise InputError(*option, f"{place} holds {str(name)[:80]!r}, which bdclean never writes")
        if not known[name](value):
            raise InputError(*option, f"{place}: {name} cannot be {reprlib.repr(value)}")
    return dict(values)
