"""Write a poisoned training set, without training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdclean import earlier, outputs
from bdclean.attacks import Attack
from bdclean.checkpoint import is_folder
from bdclean.data import PoisonDataModule
from bdclean.data.notices import say
from bdclean.data.poisoned_sets import Facts, refuse_second_attack
from bdclean.data.poisoned_writing import Poisoning, write_arrays, write_images
from bdclean.engine.introduction import introduce
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.suspects.surrogates import surrogate_of


@dataclass(frozen=True)
class PoisonedSet:
    """A poisoned training set that was written.

    Attributes:
        attack: Name of the attack.
        facts: Which images are poisoned.
        output: The file or the folder.
    """

    attack: str
    facts: Facts
    output: str

    @property
    def sentence(self) -> str:
        """The result as one sentence."""
        towards = "" if self.facts.target is None else f", towards class {self.facts.target}"
        count = f"{len(self.facts.indices):,} of {self.facts.images:,} training images"
        return f"{count} are poisoned by {self.attack}{towards}."


def poison(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    output: str = "poisoned.npz",
    overwrite: bool = False,
) -> PoisonedSet:
    """Write the training images of a source, poisoned as in `train`, with clean and triggered test images.

    Args:
        trainer: The Trainer, which gives the device.
        model: The network, an AttackModule: some attacks train a network of its kind to make their images.
        datamodule: The images and the attack.
        output: An `.npz` file, or a name without a suffix for a folder of PNG files.
        overwrite: Whether to replace a file that the same options did not make.

    Raises:
        InputError: If the attack poisons no image or in each training step, or the set cannot be written.
    """
    outputs.check_name("poison", output)
    attack = _checked(datamodule)
    name = type(attack).__name__
    if trainer.world_size > 1:
        raise InputError("trainer.devices", trainer.world_size, "poison runs in one process")
    path, settings = Path(output), settings_of(model, datamodule)
    surrogate = surrogate_of(model, attack)
    files = outputs.plan(output, folder=is_folder(path))
    if is_folder(path):
        earlier.refuse_other_folders(path, Given("output", output))
    earlier.refuse_others(files, overwrite, lambda found: earlier.poisoned_alike(found, settings))
    with trainer.writing(files):
        datamodule.prepare_data()
        count = len(datamodule.sets.training)
        say(f"Poison: {name}, {count:,} training images, on {trainer.device_name}; writes {output}")
        datamodule.prepare_attack(*surrogate, trainer.device, True)
        introduce(model, datamodule, trainer)
        poisoning = Poisoning(datamodule.attacker, settings)
        outputs.check_space(output, poisoning.count * 3 * datamodule.image_size**2)
        (write_images if is_folder(path) else write_arrays)(path, poisoning)
    return PoisonedSet(name, poisoning.facts, output)


def settings_of(model: Classifier, datamodule: PoisonDataModule) -> dict[str, Any]:
    """The options that determine a poisoned set, as plain values."""
    return {"network": dict(model.hparams), "data": dict(datamodule.hparams)}


def _checked(datamodule: PoisonDataModule) -> Attack:
    """The attack, if its images can be made before training."""
    attack, source = datamodule.attack, datamodule.source
    if attack is None:
        raise InputError("data.attack", "null", "needed: without an attack there is nothing to poison")
    if not datamodule.trainable or source is None:
        raise InputError("data.source", source and source.name, "has no labelled training images to poison")
    name = type(attack).__name__
    if attack.poisons_each_step:
        raise InputError("data.attack", name, "poisons in each training step, so there is no set to write")
    if attack.poison_rate == 0:
        raise InputError("data.attack.poison_rate", 0, "poisons no image")
    refuse_second_attack(source.poisoned, name, source.option)
    if type(attack).after_epoch is not Attack.after_epoch:
        say(f"{name} also changes the network during training; the poisoned set cannot hold that part of it.")
    return attack
