"""What a checkpoint says of its network, its images and its attack: plain values, which decide nothing unasked."""

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
    """What a checkpoint says, as far as it may be believed.

    Attributes:
        model: Arguments of a Suspect.
        data: Arguments of a PoisonDataModule, but for the attack.
        attack: Name of the attack, if there was one.
        attack_options: Its arguments.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    attack: str | None
    attack_options: Mapping[str, Any]


def described(suspect: Checkpoint) -> Described:
    """What a checkpoint says, but for files and classes of somebody's that it names.

    Raises:
        InputError: If its attack is unknown, or has other options than it says.
    """
    data = {"source": None, "image_size": suspect.model.get("image_size"), **suspect.data}
    if data["source"] not in EMBEDDED:
        data["source"] = None
    model = dict(suspect.model)
    if is_own_class(str(model.get("arch"))):
        # A class that the user has not named is not run.
        del model["arch"]
    name, options = data.pop("attack", None), data.pop("attack_options", {})
    if name is not None:
        if name not in ATTACKS:
            raise InputError("ckpt", suspect.path, f"made with the attack {name}, which this version does not know")
        check_options(ATTACKS[name], options, Given("ckpt", suspect.path))
    return Described(model, data, name, options)


def resize_of(suspect: Checkpoint, image_size: int) -> str | None:
    """How pictures become the images of a network, as its checkpoint says; None for another size than it says."""
    return suspect.data.get("resize") if suspect.model.get("image_size") == image_size else None


def check_options(kind: type[Attack], options: Mapping[str, Any], what: Given) -> None:
    """Refuse options of an attack that have other names or types than its constructor says: defaults are not checked.

    Args:
        kind: The attack.
        options: Its options.
        what: The parameter that named the file with them, for the message.

    Raises:
        InputError: If there are such.
    """
    parts = [part for part in reversed(kind.mro()) if issubclass(part, Attack)]
    hints = {name: hint for part in parts for name, hint in get_type_hints(part.__init__).items()}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "attack")
    for name, value in options.items():
        # The parser takes None for an option that is not given.
        if value is None and type(None) not in get_args(hints.get(name)):
            raise InputError(*what, f"its attack's {name} cannot be None")
        try:
            parsed = parser.parse_object({"attack": {name: listed(value)}}).attack
        except ArgumentError as error:
            raise InputError(*what, f"its attack's {name} cannot be {value!r}") from error
        # The parser takes texts for numbers. Those would count as the user's wish, and the trigger be drawn anew.
        if isinstance(value, str) and not isinstance(parsed[name], str):
            raise InputError(*what, f"its attack's {name} is a text")


def listed(value: Any) -> Any:
    """YAML knows no tuples."""
    return list(value) if isinstance(value, tuple) else value
