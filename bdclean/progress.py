"""Progress bars with the total and the remaining time, shown after two seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
DELAY = 2.0
"""Seconds before a bar is shown."""


def bar(items: Sequence[Item], name: str) -> Iterator[Item]:
    """Show a progress bar over items, if the output is a terminal, in the first process only.

    Args:
        items: The items.
        name: Text before the bar.
    """
    others = os.environ.get("LOCAL_RANK", "0") != "0"
    # None hides the bar without a terminal, and with TQDM_DISABLE.
    yield from tqdm(items, name, leave=False, delay=DELAY, disable=True if others else None)
