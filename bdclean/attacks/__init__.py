"""Backdoor attacks, one file each: what a new file defines is everywhere at once."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from bdclean.attacks.base import Attack

__all__ = ["ATTACKS", "Attack"]


def _attacks() -> Iterator[type[Attack]]:
    """The attacks of this package."""
    for found in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(found.name)
        kinds = (kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == found.name)
        yield from (kind for kind in kinds if issubclass(kind, Attack) and not inspect.isabstract(kind))


ATTACKS: dict[str, type[Attack]] = {kind.__name__: kind for kind in sorted(_attacks(), key=lambda kind: kind.__name__)}
"""Each attack by its name."""


def __getattr__(name: str) -> Any:
    """An attack of this name."""
    try:
        return ATTACKS[name]
    except KeyError:
        raise AttributeError(f"module {__name__} has no attribute {name}") from None
