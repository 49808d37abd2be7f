"""Options against what the checkpoint says: the user's come first, and a file decides nothing about what is read."""

from __future__ import annotations

import shlex
from typing import Any

from jsonargparse import Namespace

from bdclean.checkpoint import Checkpoint
from bdclean.cli.asked import Asked
from bdclean.data.sources import size_of
from bdclean.errors import InputError
from bdclean.models import is_own_class, largest_layer
from bdclean.modules import identify
from bdclean.suspects.vetting import described, resize_of

MOST_NUMBERS = 2**24
"""In a layer's output for one image, where a file says how large that is; eight images at once take 512 MiB then."""


def defaults(suspect: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says, as defaults of the options."""
    said = described(suspect)
    data = dict(said.data)
    if said.attack is not None:
        data["attack"] = {"class_path": f"bdclean.attacks.{said.attack}", "init_args": said.attack_options}
    sections = {"model": said.model, "data": data}
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def complete(config: Namespace, suspect: Checkpoint, asked: Asked) -> bool:
    """Complete the options of the network and the size of its images.

    Args:
        config: The options of a subcommand, which are changed.
        suspect: The checkpoint.
        asked: What the user says.

    Returns:
        Whether the network was recognised by its weights.

    Raises:
        InputError: If the checkpoint is no such network, or would fill the memory.
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
    if not any(map(asked, ("data.resize", "data"))):
        data.resize = resize_of(suspect, data.image_size)
    return recognised


def check_cost(suspect: Checkpoint, arch: str | None, stem: Any, arch_kwargs: Any = None) -> None:
    """Refuse a size of images that the checkpoint names, and that would fill the memory of the network."""
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
