"""What attacks make before training, kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdclean import __version__
from bdclean.attacks import Attack
from bdclean.checkpoint import write_whole
from bdclean.checkpoint.files import load
from bdclean.data.batches import to_float
from bdclean.data.images import Images

LOOKED_AT = 512
"""So many images stand for all in the key of a file."""


def prepare(
    attack: Attack,
    images: Images,
    num_classes: int,
    network: nn.Module,
    device: torch.device,
    folder: Path,
    first: bool,
) -> None:
    """Have an attack make what it needs, or read what it made before.

    Args:
        attack: The attack; its buffers and parameters are filled in place.
        images: The attacker's images, clean, with their labels.
        num_classes: How many classes there are.
        network: As in `Attack.prepare`; it is trained, if anything is.
        device: Where that happens.
        folder: Where files of what was made lie, and are written to.
        first: Whether to make what is missing; other processes of a machine wait for the file.
    """
    made_of = {
        "version": __version__,
        "attack": type(attack).__name__,
        "options": attack.options(),
        "classes": num_classes,
        "network": str(network),
        "images": _digest(images),
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{type(attack).__name__}-{key}.pt"
    if first and not path.exists():
        attack.to(device)
        network.to(device)
        labels = images.labels.cpu()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(attack.seed)
            attack.prepare(lambda indices: to_float(images.batch(indices).to(device)), labels, num_classes, network)
        attack.cpu()
        state = {name: value.detach() for name, value in _tensors(attack).items() if value is not None}
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: torch.save(state, temporary))
        return
    while not path.exists():
        time.sleep(0.5)
    for name, value in load(str(path), f"--data.root: {path}").items():
        module, _, own = name.rpartition(".")
        place = attack.get_submodule(module)
        if own in place._parameters:
            place._parameters[own] = nn.Parameter(value, place.get_parameter(own).requires_grad)
        else:
            place._buffers[own] = value


def _tensors(attack: Attack) -> dict[str, Tensor | None]:
    """All parameters and buffers, with those that a checkpoint does without."""
    return {**dict(attack.named_parameters()), **dict(attack.named_buffers())}


def _digest(images: Images) -> dict[str, Any]:
    """What tells a set of images from another: some of their pixels, and all labels."""
    some = images.batch(torch.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).long()).cpu()
    content = hashlib.sha256(some.contiguous().numpy().tobytes())
    content.update(images.labels.cpu().numpy().tobytes())
    return {"count": len(images), "content": content.hexdigest()}
