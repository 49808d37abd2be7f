"""Backdoor attacks, one file each: a new one is imported here and named in `__all__`, and is everywhere at once."""

from bdclean.attacks.badnets import BadNets
from bdclean.attacks.base import Attack

__all__ = ["Attack", "BadNets"]
