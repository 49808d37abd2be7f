"""Progress bars with the total and the remaining time, shown after two seconds; without a terminal, a line a minute."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
DELAY = 2.0
"""Seconds before a bar is shown."""
INTERVAL = 60.0
"""Seconds between two lines where no bar can be shown."""
logger = logging.getLogger(__name__)


def bar(items: Sequence[Item], name: str) -> Iterator[Item]:
    """Show the progress over items, in the first process only.

    Args:
        items: The items.
        name: Text before the bar.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield from items
    elif sys.stderr.isatty() or os.environ.get("TQDM_DISABLE"):
        yield from tqdm(items, name, leave=False, delay=DELAY)
    else:
        yield from _lines(items, name)


def _lines(items: Sequence[Item], name: str) -> Iterator[Item]:
    """Log the progress over items in lines, for files and pipes."""
    started = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= INTERVAL:
            last = now
            left = (now - started) / done * (len(items) - done)
            logger.warning("%s: %d of %d, %d min left", name, done, len(items), max(1, round(left / 60)))
        yield item
