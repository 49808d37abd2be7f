"""Split the words of a command line into options and values, without a list of the options."""

from __future__ import annotations

import re
from collections.abc import Sequence


def given_options(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Names of the options among words, without dashes, and the value of each; None if no value follows."""
    given: list[tuple[str, str | None]] = []
    for word, following in zip(words, [*words, None][1:], strict=True):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        # An option name has no space.
        if match := re.fullmatch(r"--(\S+)|-(c)", name):
            given.append(("config" if match[2] else match[1], value if equals else following))
    return given
