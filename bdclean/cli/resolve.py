"""Options against what the checkpoint says: the user's come first, and a file decides nothing about what is read."""

from __future__ import annotations

import shlex
from typing import Any

from jsonargparse import Namespace

from bdclean.checkpoint import Checkpoint
from bdclean.cli.user_options import UserOptions
from bdclean.errors import InputError
from bdclean.suspects.completing import complete
from bdclean.suspects.vetting import described


def defaults(suspect: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says, as defaults of the options."""
    said = described(suspect)
    data = dict(said.data)
    if said.attack is not None:
        data["attack"] = {"class_path": f"bdclean.attacks.{said.attack}", "init_args": said.attack_options}
    sections = {"model": said.model, "data": data}
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def check_complete(config: Namespace, ckpt: str | None) -> None:
    """Refuse options that the parser takes and no command can work with.

    Args:
        config: The options of a subcommand.
        ckpt: The checkpoint that was read; None if none was.

    Raises:
        InputError: If a group of options is null, or the options name another checkpoint.
    """
    for group in ("model", "data", "trainer"):
        if config.get(group) is None:
            raise InputError(group, "null", "no such value; expected a mapping, {name: value}")
    if config.get("ckpt") != ckpt:
        raise InputError("ckpt", config.ckpt, "belongs on the command line, or at the top of the --config file")


def resolved(config: Namespace, suspect: Checkpoint, user: UserOptions) -> dict[str, Any]:
    """Options of the network and the size of the images, with what the checkpoint and its weights say.

    Args:
        config: The options of a subcommand.
        suspect: The checkpoint.
        user: The options that the user gave.

    Returns:
        Names of options to their values.

    Raises:
        InputError: If the checkpoint is not such a network, or would fill the memory.
    """
    sized = user.get("model.image_size") is not None
    model = complete(suspect, dict(config.model), dict(config.data), sized=sized)
    options = {f"model.{name}": value for name, value in model.items()}
    return options | {"data.image_size": config.data.image_size or model["image_size"]}


def suggest_source(data: Namespace, suspect: Checkpoint) -> list[str]:
    """Which images the checkpoint names, unless the user names some.

    Raises:
        InputError: If there are no images at all.
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
