"""The network with which an attack makes its images: the user's clean one, or an untrained one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bdclean.attacks import Attack
from bdclean.checkpoint import read
from bdclean.data.cache import identity
from bdclean.errors import InputError
from bdclean.modules import Classifier, Suspect
from bdclean.modules.identify import identify

PARAMETER = "data.attack.surrogate"
"""The parameter that names the file."""
UNKNOWN = ("arch", "arch_kwargs", "stem", "mean", "std")
"""Arguments of a Suspect that are read from the file, or recognised from its weights."""


def surrogate_of(model: Classifier, attack: Attack | None) -> tuple[Callable[[], nn.Module], Mapping[str, Any]]:
    """The network that `Attack.prepare` gets, and its description.

    Args:
        model: The network that will be backdoored.
        attack: The attack.

    Returns:
        A function that makes the network, from images in [0, 1] to logits, and plain values that identify it.

    Raises:
        InputError: If the user's file is not a network for these images.
    """
    path = None if attack is None else attack.surrogate
    if path is None:
        return model.untrained, dict(model.hparams)
    checkpoint = read(path, PARAMETER)
    found = identify(checkpoint, dict.fromkeys(UNKNOWN), model.image_size, PARAMETER)
    if found.get("mean") is None and found.get("std") is None:
        found |= {"mean": model.hparams["mean"], "std": model.hparams["std"]}
    if found["num_classes"] != model.num_classes:
        raise InputError(
            PARAMETER, path, f"has {found['num_classes']} classes, and the images have {model.num_classes}"
        )
    network = Suspect(**{**found, "image_size": model.image_size})
    network.load(checkpoint, PARAMETER)
    plain = nn.Sequential(network.normalize, network.network)
    return lambda: plain, {"surrogate": identity(Path(path))}
