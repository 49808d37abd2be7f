"""Complete options from a checkpoint: the user's options come first, and a file never decides which files are read."""

from __future__ import annotations

import shlex
from typing import Any

from jsonargparse import Namespace

from bdclean.checkpoint import Checkpoint
from bdclean.cli.user_options import UserOptions
from bdclean.errors import InputError
from bdclean.suspects.completing import complete
from bdclean.suspects.vetting import described, resize_of


def defaults(suspect: Checkpoint) -> dict[str, Any]:
    """The options in a checkpoint, as defaults of the command line."""
    description = described(suspect)
    data = dict(description.data)
    if (attack := description.attack) is not None:
        data["attack"] = {"class_path": f"bdclean.attacks.{attack}", "init_args": description.attack_options}
    sections = {"model": description.model, "data": data}
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def check_complete(config: Namespace, ckpt: str | None) -> None:
    """Refuse options that the parser accepts but no command can use.

    Args:
        config: The options of a subcommand.
        ckpt: Path of the checkpoint; None without a checkpoint.

    Raises:
        InputError: If a group of options is null, or the options name another checkpoint.
    """
    for group in ("model", "data", "trainer"):
        if config.get(group) is None:
            raise InputError(group, "null", "no such value; expected a mapping, {name: value}")
    if config.get("ckpt") != ckpt:
        raise InputError("ckpt", config.ckpt, "belongs on the command line, or at the top of the --config file")


def resolved(config: Namespace, suspect: Checkpoint, user: UserOptions) -> dict[str, Any]:
    """Complete the options of the network and the image size from the checkpoint and its weights.

    Args:
        config: The options of a subcommand.
        suspect: The checkpoint.
        user: The options that the user gave.

    Returns:
        Values of options by name.

    Raises:
        InputError: If the checkpoint does not fit the options, or its network would fill the memory.
    """
    sized = user.get("model.image_size") is not None
    model = complete(suspect, dict(config.model), dict(config.data), sized=sized)
    options = {f"model.{name}": value for name, value in model.items()}
    options["data.image_size"] = config.data.image_size or model["image_size"]
    if user.get("data.resize") is None:
        options["data.resize"] = resize_of(suspect, options["data.image_size"])
    return options


def suggest_source(data: Namespace, suspect: Checkpoint) -> list[str]:
    """A notice about the images that the checkpoint names, if the user names none.

    Raises:
        InputError: If there are no images.
    """
    named = suspect.data.get("source")
    if data.source is not None or named is None:
        return []
    option = f"--data.source {shlex.quote(named)}"
    if data.unlabeled is None:
        raise InputError(
            "data.source",
            None,
            f"needed, or --data.unlabeled; {suspect.path} says that it was trained on {named}, "
            f"which is not read automatically: {option}",
        )
    return [f"{suspect.path} says that it was trained on {named}: {option} measures ACC there"]
