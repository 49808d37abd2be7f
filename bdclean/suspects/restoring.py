"""Restoring weights, trigger and triggered images from a suspect's checkpoint."""

from __future__ import annotations

import torch

from bdclean import first_line
from bdclean.attacks import Attack
from bdclean.attacks.badnets import PATTERNS
from bdclean.checkpoint import Checkpoint
from bdclean.data import PoisonDataModule
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.suspects.vetting import listed

TRAINING = ("target_class", "source_class", "label_mode", "poison_rate")
"""Options of attacks that do not change the trigger."""
TRIAL_SIZE = 32
"""Side of the image on which a generated trigger is tried, in pixels: a file can specify large images."""


def restore(model: Classifier, datamodule: PoisonDataModule, suspect: Checkpoint, named: bool = False) -> None:
    """Load the weights of a checkpoint into a network, and the trigger into its images.

    Args:
        model: The network.
        datamodule: Its images. An attack other than the checkpoint's keeps its own trigger.
        suspect: The checkpoint.
        named: Whether the user named the picture of the trigger, so that reading it is allowed.

    Raises:
        InputError: If weights or trigger do not fit, or the triggered images have classes beyond the network's.
    """
    model.load(suspect, "ckpt")
    if datamodule.attack is not None:
        _restore_trigger(datamodule.attack, datamodule, suspect, named)
    datamodule.triggered = triggered = suspect.triggered
    if triggered is not None and max(triggered.labels.max(), triggered.targets.max()) >= model.num_classes:
        raise InputError(
            "ckpt", suspect.path, f"its triggered images have classes beyond the network's {model.num_classes}"
        )


def _restore_trigger(attack: Attack, datamodule: PoisonDataModule, suspect: Checkpoint, named: bool) -> None:
    """Load the checkpoint's trigger, unless the user specified another attack."""
    wanted, stored = datamodule.hparams["attack_options"], suspect.data.get("attack_options", {})
    changed = [key for key, value in stored.items() if listed(wanted.get(key)) != listed(value)]
    changed = [key for key in changed if key not in TRAINING]
    name = type(attack).__name__
    if name != suspect.data.get("attack") or changed:
        if attack.trains_trigger:
            other = f"with another {Given(f'data.attack.{changed[0]}')}" if changed else "there"
            raise InputError("data.attack", name, f"its trigger is learned, and {suspect.path} has none made {other}")
        picture = stored.get("trigger", PATTERNS[0])
        if picture not in PATTERNS and "trigger" not in changed and not named:
            raise InputError(
                "data.attack.trigger",
                None,
                f"needed, to make the trigger anew; {suspect.path} names {picture}, which is not read automatically",
            )
        return
    try:
        attack.restore(suspect.trigger)
        size = TRIAL_SIZE if next(attack.parameters(), None) is not None else datamodule.image_size
        if attack.apply(torch.zeros(1, 3, size, size)).shape != (1, 3, size, size):
            raise RuntimeError("it changes the size of images")
    except Exception as error:  # tensors of an untrusted file can raise any error
        raise InputError("ckpt", suspect.path, f"its trigger does not fit {name} ({first_line(error)})") from error
