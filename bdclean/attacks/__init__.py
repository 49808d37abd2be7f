"""Backdoor attacks, one file each: what a new file defines is everywhere at once."""

from typing import Any

from bdclean.attacks.base import Attack
from bdclean.discovery import find_classes

__all__ = ["ATTACKS", "Attack"]

ATTACKS: dict[str, type[Attack]] = {kind.__name__: kind for kind in find_classes(__name__, __path__, Attack)}
"""Each attack by its name."""


def __getattr__(name: str) -> Any:
    """An attack of this name."""
    try:
        return ATTACKS[name]
    except KeyError:
        raise AttributeError(f"module {__name__} has no attribute {name}") from None
