"""Describe a file without weights: its content, and what to save instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

EXPECTED = "expected a state_dict, as torch.save(network.state_dict(), path) writes it"
PLAIN = {type(None): "None", bool: "a truth value", int: "a number", float: "a number", str: "a text"}


def holding(content: Any) -> str:
    """Describe the content of a file in which no weights were found.

    Args:
        content: Tensors, arrays and plain values.

    Returns:
        The content, and what was expected instead: the end of a sentence after "holds".
    """
    if not isinstance(content, dict):
        if isinstance(content, (list, tuple)):
            return f"a {type(content).__name__} of {len(content)} entries; {EXPECTED}"
        kind = "a single tensor" if isinstance(content, Tensor) else PLAIN.get(type(content), type(content).__name__)
        return f"{kind}; {EXPECTED}"
    if not content:
        return f"an empty dictionary; {EXPECTED}"
    parts = [content, *(value for value in content.values() if isinstance(value, dict))]
    if any(_mostly(part, lambda name, value: isinstance(value, np.ndarray)) for part in parts):
        return (
            "NumPy arrays, not tensors; convert them: "
            "torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)"
        )
    for part in parts:
        if _mostly(part, lambda name, value: isinstance(value, Tensor) and not isinstance(name, str)):
            name = next(name for name in part if not isinstance(name, str))
            return (
                f"tensors under {str(name)[:40]}, a key of type {type(name).__name__}; {EXPECTED}, with names as keys"
            )
        if _mostly(part, lambda name, value: isinstance(value, Tensor)):
            return f"no weights: of its tensors ({some(part)}) none is a matrix; {EXPECTED}"
    if any(value == {} for value in content.values()):
        empty = next(name for name, value in content.items() if value == {})
        return f"no weights: {str(empty)[:40]!r} is empty; {EXPECTED}"
    return f"no weights (it has {some(content)}); {EXPECTED}"


def some(names: Iterable[Any]) -> str:
    """The first ten of some names, shortened."""
    return ", ".join(str(name)[:40] for name in list(names)[:10])


def _mostly(part: dict[Any, Any], check: Callable[[Any, Any], bool]) -> bool:
    """Whether most entries of a dictionary pass a check."""
    return 2 * sum(check(name, value) for name, value in part.items()) > len(part)
