"""Complete options from a checkpoint: the user's options come first, and a file never decides which files are read."""

from __future__ import annotations

import shlex
from typing import Any

from jsonargparse import Namespace

from bdclean.checkpoint import Checkpoint
from bdclean.cli.asked import Asked
from bdclean.data.sources import size_of
from bdclean.errors import InputError
from bdclean.modules import identify
from bdclean.networks import is_own_class, largest_layer
from bdclean.suspects.vetting import described

MOST_NUMBERS = 2**24
"""Maximum size of a layer's output for one image of the size that a file names; eight images then take 512 MiB."""


def defaults(suspect: Checkpoint) -> dict[str, Any]:
    """The options in a checkpoint, as defaults of the command line."""
    description = described(suspect)
    data = dict(description.data)
    if (attack := description.attack) is not None:
        data["attack"] = {"class_path": f"bdclean.attacks.{attack}", "init_args": description.attack_options}
    sections = {"model": description.model, "data": data}
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def complete(config: Namespace, suspect: Checkpoint, asked: Asked) -> bool:
    """Complete the options of the network and the size of its images.

    Args:
        config: The options of a subcommand; changed in place.
        suspect: The checkpoint.
        asked: The user's options.

    Returns:
        Whether the network was recognised from its weights.

    Raises:
        InputError: If the checkpoint does not fit the options, or its network would fill the memory.
    """
    model, data = config.model, config.data
    recognised = model.arch is None
    if not any(map(asked, ("model.image_size", "model"))):
        check_cost(suspect, model.arch, model.stem, model.arch_kwargs)
    size = data.image_size or size_of(data.source, data.unlabeled, data.root)
    for name, value in identify(suspect, dict(model), size).items():
        model[name] = value
    if data.image_size is None:
        data.image_size = model.image_size
    return recognised


def check_cost(suspect: Checkpoint, arch: str | None, stem: Any, arch_kwargs: Any = None) -> None:
    """Refuse an image size in a checkpoint with which the network would fill the memory."""
    size = suspect.model.get("image_size")
    if size is None or arch is None or is_own_class(arch):
        return
    numbers = largest_layer(arch, size, stem, arch_kwargs)
    if numbers > MOST_NUMBERS:
        raise InputError(
            "ckpt",
            suspect.path,
            f"with images of {size} pixels, as it says, a layer of {arch} has {numbers} "
            f"numbers for each; give --model.image_size {size} if that is right",
        )


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
