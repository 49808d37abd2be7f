"""Backdoor attacks, one file each. All commands find the attacks of a new file by themselves."""

from typing import Any

from bdclean.attacks.base import Attack
from bdclean.discovery import find_classes

__all__ = ["ATTACKS", "Attack"]

ATTACKS: dict[str, type[Attack]] = {kind.__name__: kind for kind in find_classes(__name__, __path__, Attack)}
"""Maps the name of each attack to its class."""


def __getattr__(name: str) -> Any:
    """The attack with this name."""
    try:
        return ATTACKS[name]
    except KeyError:
        raise AttributeError(f"module {__name__} has no attribute {name}") from None
