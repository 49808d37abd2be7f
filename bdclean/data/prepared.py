"""What attacks make before training, kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bdclean import __version__
from bdclean.attacks import Attack
from bdclean.attacks.common import seeded
from bdclean.checkpoint import write_whole
from bdclean.checkpoint.files import load
from bdclean.data.images import Images, to_float
from bdclean.errors import Given, InputError


def find(attack: Attack, made_of: Mapping[str, Any], folder: Path) -> Path:
    """The file of what an attack makes.

    Args:
        attack: The attack, whose options are part of the file's name.
        made_of: What else it depends on, as plain values.
        folder: Where such files lie.

    Raises:
        InputError: If there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("data.root", folder.parent, f"no folder can be made there ({error.strerror})") from error
    name = type(attack).__name__
    key = json.dumps([__version__, name, attack.options(), dict(made_of)], sort_keys=True, default=str)
    return folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"


def make(
    attack: Attack,
    images: Images,
    num_classes: int,
    network: Callable[[], nn.Module],
    device: torch.device,
    path: Path,
) -> None:
    """Have an attack make what it needs, and keep it.

    Args:
        attack: The attack; its buffers and parameters are filled in place.
        images: The attacker's images, clean, with their labels.
        num_classes: How many classes there are.
        network: Gives a network as in `Attack.prepare`, with new weights.
        device: Where things are made.
        path: The file.

    Raises:
        InputError: If what comes out are no finite numbers.
    """

    def look_up(indices: torch.Tensor) -> torch.Tensor:
        return to_float(images.batch(indices).to(device))

    attack.to(device)
    with seeded(attack.seed, device):
        attack.prepare(look_up, images.labels.cpu(), num_classes, network().to(device))
    attack.cpu()
    state = {name: value.detach() for name, value in [*attack.named_parameters(), *attack.named_buffers()]}
    if not all(value.isfinite().all() for value in state.values()):
        raise InputError("data.attack", type(attack).__name__, "its preparation is not finite; lower its learning rate")
    write_whole(path, lambda file: torch.save(state, file))


def read(attack: Attack, path: Path) -> None:
    """Fill an attack with what was made before, or is being made by another process.

    Raises:
        InputError: If the file is damaged.
    """
    while not path.exists():
        time.sleep(0.5)
    for name, value in load(str(path), Given("data.root", path)).content.items():
        module, _, own = name.rpartition(".")
        place = attack.get_submodule(module)
        if own in place._parameters:
            place._parameters[own] = nn.Parameter(value, place.get_parameter(own).requires_grad)
        else:
            place._buffers[own] = value
