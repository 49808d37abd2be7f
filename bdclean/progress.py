"""Progress bars of work that is no training: with a total and the time that is left, after two seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
DELAY = 2.0
"""Seconds before a bar is shown."""


def bar(items: Sequence[Item], name: str) -> Iterator[Item]:
    """The items, behind a progress bar in a terminal, in one process.

    Args:
        items: What there is to do.
        name: What the bar says is being done.
    """
    others = os.environ.get("LOCAL_RANK", "0") != "0"
    # Without a terminal there is none, and with TQDM_DISABLE.
    yield from tqdm(items, name, leave=False, delay=DELAY, disable=True if others else None)
