"""Completing the arguments of a network from its checkpoint, its weights, and the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdclean.checkpoint import Checkpoint
from bdclean.data.sources import size_of
from bdclean.errors import Given, InputError
from bdclean.modules.identify import identify
from bdclean.networks import is_own_class, largest_layer

LARGEST_LAYER = 2**24
"""Maximum elements of a layer's output for one image of the size in a file; eight such images take 512 MiB."""


def complete(suspect: Checkpoint, model: Mapping[str, Any], data: Mapping[str, Any], *, sized: bool) -> dict[str, Any]:
    """Complete the arguments of a Suspect.

    Args:
        suspect: The checkpoint.
        model: Arguments of the Suspect from the user and the checkpoint; None for values that neither gives.
        data: Arguments of its PoisonDataModule.
        sized: Whether the user gave the size of the network's images.

    Raises:
        InputError: If the checkpoint is not such a network, or the image size that it names would exceed the memory.
    """
    if not sized:
        _check_cost(suspect, model)
    images = data.get("image_size") or size_of(data.get("source"), data.get("unlabeled"), data.get("root") or "data")
    return identify(suspect, model, images)


def _check_cost(suspect: Checkpoint, model: Mapping[str, Any]) -> None:
    """Refuse an image size in the checkpoint that would exceed the memory."""
    size, arch = suspect.model.get("image_size"), model.get("arch")
    if size is None or arch is None or is_own_class(arch):
        return
    numbers = largest_layer(arch, size, model.get("stem"), model.get("arch_kwargs"))
    if numbers > LARGEST_LAYER:
        raise InputError(
            "ckpt",
            suspect.path,
            f"with images of {size} pixels, as its metadata says, a layer of {arch} has {numbers} "
            f"values for each image; pass {Given('model.image_size', size)} if that is right",
        )
