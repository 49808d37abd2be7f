"""The words of a command line, which tell options from values without knowing any."""

from __future__ import annotations

import re
from collections.abc import Sequence


def given_options(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Names of the options among words, without dashes, and their values, where one follows."""
    given: list[tuple[str, str | None]] = []
    for word, following in zip(words, [*words, None][1:], strict=True):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        # A word with a space in its name is a value.
        if match := re.fullmatch(r"--(\S+)|-(c)", name):
            given.append(("config" if match[2] else match[1], value if equals else following))
    return given
