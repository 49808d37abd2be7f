"""From a file to a network that can be judged, with the trigger that came along."""

from bdclean.suspects.loading import load
from bdclean.suspects.restoring import restore
from bdclean.suspects.vetting import Described, described

__all__ = ["Described", "described", "load", "restore"]
