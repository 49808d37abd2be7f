"""Suggesting a known name for a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.7
"""Similarity in [0, 1] above which one name may be a misspelling of the other."""
MOST_SUGGESTED = 2
"""Maximum number of names to suggest if several are equally similar."""


def suggestion(wrong: str, known: Iterable[str], dashes: str = "") -> str:
    """The question "did you mean ...?" for a message; empty if no known name is similar.

    Args:
        wrong: The unknown name.
        known: All known names.
        dashes: Prefix of the names in the message, such as `--`.
    """
    # Names in few groups first.
    names = sorted({*known} - {wrong}, key=lambda name: (name.count("."), name))
    whole = {name: name.lower() for name in names}
    # Users often omit the group: `max_epochs` for `trainer.max_epochs`.
    last = {name: lower.rpartition(".")[2] for name, lower in whole.items()}
    for given, table in ((wrong.lower(), whole), (wrong.rpartition(".")[2].lower(), last)):
        similarity = {name: difflib.SequenceMatcher(None, given, other).ratio() for name, other in table.items()}
        best = max(similarity.values(), default=0)
        if best >= CLOSE:
            close = [f"{dashes}{name}" for name in names if similarity[name] == best][:MOST_SUGGESTED]
            return f"; did you mean {' or '.join(close)}?"
    return ""
