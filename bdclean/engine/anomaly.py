"""Report the nan that `--trainer.detect_anomaly true` finds in one line: the function, and the code that called it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch

from bdclean.errors import InputError

ERROR = re.compile(r"Function '\w+' returned nan values")
"""Beginning of torch's error."""
WARNING = "Error detected in "
"""Beginning of torch's warning with the traceback of the forward pass."""
FRAME = re.compile(r'File "(.+)", line (\d+), in (\S+)')
"""A frame of that traceback."""
FOREIGN = tuple(str(Path(str(package.__file__)).parent) for package in (torch, lightning))
"""Folders of libraries, whose frames are skipped when looking for the cause."""


@contextmanager
def located() -> Iterator[None]:
    """Context that turns a nan found by anomaly detection into a one-line error with its location.

    Raises:
        InputError: If a backward pass returns nan, and anomaly detection is on.
    """
    places: list[tuple[str, str, str]] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def keep(message: Warning | str, *where: Any, **options: Any) -> None:
            if str(message).startswith(WARNING):
                frames = FRAME.findall(str(message))
                places.extend([frame for frame in frames if not frame[0].startswith(FOREIGN)][-1:])
            else:
                show(message, *where, **options)

        warnings.showwarning = keep
        try:
            yield
        except RuntimeError as error:
            if (found := ERROR.search(str(error))) is None:
                raise
            called = "".join(f", called by {name} ({Path(file).name}, line {line})" for file, line, name in places[-1:])
            raise InputError(
                "trainer.detect_anomaly",
                "true",
                f"{found[0]}{called}: the training diverges; without the option the "
                "program lowers the learning rate itself where it can",
            ) from error
