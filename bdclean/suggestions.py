"""Did you mean ...?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.7
"""How alike two names are, in [0, 1], of which one may be a slip for the other."""
MOST_SUGGESTED = 2
"""Names that are suggested where several are equally close."""


def suggestion(wrong: str, known: Iterable[str], dashes: str = "") -> str:
    """The question whether a known name was meant; empty if none is like it.

    Args:
        wrong: What was given.
        known: Names that exist.
        dashes: What stands before them on the command line.
    """
    # Those of few groups first.
    names = sorted({*known} - {wrong}, key=lambda name: (name.count("."), name))
    whole = {name: name.lower() for name in names}
    # Many leave out the group: `max_epochs` for `trainer.max_epochs`.
    last = {name: short.rpartition(".")[2] for name, short in whole.items()}
    for short, table in ((wrong.lower(), whole), (wrong.rpartition(".")[2].lower(), last)):
        likeness = {name: difflib.SequenceMatcher(None, short, other).ratio() for name, other in table.items()}
        best = max(likeness.values(), default=0)
        if best >= CLOSE:
            close = [f"{dashes}{name}" for name in names if likeness[name] == best][:MOST_SUGGESTED]
            return f"; did you mean {' or '.join(close)}?"
    return ""
