"""Find which callback, logger or other part of Lightning cannot be made, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from bdclean.cli.hints import find_class
from bdclean.engine.blame import OF_KINDS
from bdclean.engine.failures import missing
from bdclean.errors import InputError

OPTIONS = sorted({option for options in OF_KINDS.values() for option in options})
"""Options of the Trainer that can name classes."""


def broken_part(trainer: Namespace) -> InputError | None:
    """The error of the first part that cannot be made, by making each part alone; None if all can be made.

    Args:
        trainer: The options of a Trainer.
    """
    for option in OPTIONS:
        for path, arguments in _chosen(trainer.get(option)):
            try:
                kind = find_class(path, [object])
                assert kind is not None
                kind(**arguments)
            except Exception as error:  # a class can fail in any way
                return InputError(f"trainer.{option}", path.rpartition(".")[2], missing(str(error)))
    return None


def _chosen(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The class and the arguments of each part of an option."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Namespace) and "class_path" in part:
            arguments = part.get("init_args")
            yield part.class_path, {} if arguments is None else arguments.as_dict()
