"""One-line notices for the user, printed by the first process only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from bdclean import first_ten, printable
from bdclean.errors import Given

logger = logging.getLogger(__name__)


@rank_zero_only
def say(message: str) -> None:
    """Print a notice."""
    logger.warning(printable(message))


def say_left_out(option: Given, paths: Sequence[Path]) -> None:
    """Report files and folders that are left out because they cannot be read, if there are any.

    Args:
        option: The parameter that named the images.
        paths: The files and folders.
    """
    if paths:
        say(f"{option}: {len(paths)} left out, as they cannot be read: {first_ten(paths)}")
