"""The claims of a checkpoint about its network, its images and its attack, as far as they are safe to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from bdclean.attacks import ATTACKS, Attack
from bdclean.checkpoint import Checkpoint
from bdclean.data.sources.shapes import NAMES as EMBEDDED
from bdclean.errors import Given, InputError
from bdclean.networks import is_own_class


@dataclass(frozen=True)
class Described:
    """The claims of a checkpoint that are safe to use.

    Attributes:
        model: Arguments of a Suspect.
        data: Arguments of a PoisonDataModule, except the attack.
        attack: Name of the attack; None if there is none.
        attack_options: Arguments of the attack.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    attack: str | None
    attack_options: Mapping[str, Any]


def described(suspect: Checkpoint) -> Described:
    """The claims of a checkpoint, without names of files and of a user's classes.

    Raises:
        InputError: If its attack is unknown, or does not have the claimed options.
    """
    data = {"source": None, "image_size": suspect.model.get("image_size"), **suspect.data}
    if data["source"] not in EMBEDDED:
        data["source"] = None
    model = dict(suspect.model)
    if is_own_class(str(model.get("arch"))):
        # A user's class is only imported if the user names it.
        del model["arch"]
    name, options = data.pop("attack", None), data.pop("attack_options", {})
    if name is not None:
        if name not in ATTACKS:
            raise InputError("ckpt", suspect.path, f"made with the attack {name}, which this version does not know")
        check_options(ATTACKS[name], options, Given("ckpt", suspect.path))
    return Described(model, data, name, options)


def resize_of(suspect: Checkpoint, image_size: int) -> str | None:
    """The resizing in a checkpoint; None if the image size differs from the checkpoint's."""
    return suspect.data.get("resize") if suspect.model.get("image_size") == image_size else None


def check_options(kind: type[Attack], options: Mapping[str, Any], what: Given) -> None:
    """Check names and types of an attack's options against its constructor. Defaults are not checked.

    Args:
        kind: Class of the attack.
        options: Its options.
        what: The parameter that names the file, for the message.

    Raises:
        InputError: If a name or a type is wrong.
    """
    parts = [part for part in reversed(kind.mro()) if issubclass(part, Attack)]
    hints = {name: hint for part in parts for name, hint in get_type_hints(part.__init__).items()}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "attack")
    for name, value in options.items():
        # To the parser, None means that an option is not given.
        if value is None and type(None) not in get_args(hints.get(name)):
            raise InputError(*what, f"its attack's {name} cannot be None")
        try:
            parsed = parser.parse_object({"attack": {name: listed(value)}}).attack
        except ArgumentError as error:
            raise InputError(*what, f"its attack's {name} cannot be {value!r}") from error
        # The parser accepts strings as numbers, but these would differ from the stored options, so that the trigger
        # would be drawn again.
        if isinstance(value, str) and not isinstance(parsed[name], str):
            raise InputError(*what, f"its attack's {name} is a string")


def listed(value: Any) -> Any:
    """Convert a tuple to a list, because YAML has no tuples."""
    return list(value) if isinstance(value, tuple) else value
