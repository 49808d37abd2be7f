"""Preparations of attacks before training, kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bdclean import __version__
from bdclean.attacks import Attack
from bdclean.attacks.common import Part, seeded
from bdclean.checkpoint import write_whole
from bdclean.checkpoint.files import load
from bdclean.data.images import Images, to_float
from bdclean.data.notices import say
from bdclean.errors import Given, InputError


def find(attack: Attack, made_of: Mapping[str, Any], folder: Path) -> Path:
    """The file of an attack's preparation.

    Args:
        attack: The attack; the file's name depends on its options.
        made_of: Everything else that the preparation depends on, as plain values.
        folder: Folder of the preparations.

    Raises:
        InputError: If the folder cannot be made.
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
    """Run an attack's preparation, and write it to a file.

    Args:
        attack: The attack; its buffers and parameters are filled in place.
        images: The attacker's clean images, with labels.
        num_classes: Number of classes.
        network: Makes a network with new weights for `Attack.prepare`.
        device: Device of the preparation.
        path: The file.

    Raises:
        InputError: If the preparation has nan or inf.
    """

    def look_up(indices: torch.Tensor) -> torch.Tensor:
        return to_float(images.batch(indices).to(device))

    parts = Parts(path.with_suffix(".parts"), attack.seed, device)
    attack.to(device)
    attack.keep = parts.keep
    with seeded(attack.seed, device):
        attack.prepare(look_up, images.labels.cpu(), num_classes, network().to(device))
    del attack.keep
    attack.cpu()
    state = {name: value.detach() for name, value in [*attack.named_parameters(), *attack.named_buffers()]}
    if not all(value.isfinite().all() for value in state.values()):
        raise InputError("data.attack", type(attack).__name__, "its preparation is not finite; lower its learning rate")
    write_whole(path, lambda file: torch.save(state, file))
    parts.forget()


class Parts:
    """The parts of an unfinished preparation, in a folder.

    Args:
        folder: The folder.
        seed: Seed of the attack. The random numbers of each part depend on it and on the part's name, so that an
            interrupted preparation has the same result as any other.
        device: Device of the preparation.
    """

    def __init__(self, folder: Path, seed: int, device: torch.device) -> None:
        self.folder = folder
        self.seed = seed
        self.device = device
        if found := len([*folder.glob("*.pt")]):
            say(f"Continuing an interrupted preparation: {found} of its parts are in {folder}")

    def keep(self, name: str, make: Callable[[], Part]) -> Part:
        """See `bdclean.attacks.common.Keep`.

        Raises:
            InputError: If the file of the part is damaged.
        """
        path = self.folder / f"{name}.pt"
        if path.exists():
            content: Part = load(str(path), Given("data.root", path)).content
            return content
        key = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        with seeded(int.from_bytes(key[:7], "big"), self.device):
            part = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(part, file))
        return part

    def forget(self) -> None:
        """Remove the folder, once the preparation is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read(attack: Attack, path: Path) -> None:
    """Load a preparation into an attack, after waiting for another process to write it if necessary.

    Raises:
        InputError: If the file is damaged.
    """
    while not path.exists():
        time.sleep(0.5)
    for name, value in load(str(path), Given("data.root", path)).content.items():
        module_name, _, tensor_name = name.rpartition(".")
        module = attack.get_submodule(module_name)
        if tensor_name in module._parameters:
            requires_grad = module.get_parameter(tensor_name).requires_grad
            module._parameters[tensor_name] = nn.Parameter(value, requires_grad)
        else:
            module._buffers[tensor_name] = value
