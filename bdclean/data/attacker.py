"""The attacker's images: training images, some of them poisoned, and images to evaluate a network on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdclean.attacks import Attack
from bdclean.attacks.roles import POISONED
from bdclean.data.augment import Augmentation
from bdclean.data.batches import Batches
from bdclean.data.images import Images, MemoryImages, to_float
from bdclean.data.placement import Placement
from bdclean.data.poisoning import Poisoned, poison, trigger
from bdclean.data.prepared import find, make, read
from bdclean.data.splits import Labelled


@dataclass(frozen=True)
class Pairs:
    """Images with and without a trigger.

    Attributes:
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.
        targets: (N,) their target classes.
    """

    clean: Tensor
    triggered: Tensor
    targets: Tensor


class Attacker:
    """The training images of a network, some of them poisoned, and clean and triggered images to evaluate it on.

    Args:
        attack: The attack; None to keep all images clean.
        labelled: The images.
        placement: Where the images are kept.
        augment: Crops and flips in training.
    """

    def __init__(self, attack: Attack | None, labelled: Labelled, placement: Placement, augment: Augmentation) -> None:
        self.attack = attack
        self.labelled = labelled
        self.placement = placement
        self.augment = augment

    def build(self) -> None:
        """Let the attack build its trigger, unless it has one."""
        if self.attack is not None and not self.attack.built:
            self.attack.build(self.labelled.image_size)

    def prepare(
        self,
        network: Callable[[], nn.Module],
        description: Mapping[str, Any],
        device: torch.device,
        folder: Path,
        first: bool,
    ) -> None:
        """Let the attack prepare before training, or read an earlier preparation.

        Args:
            network: Makes a network of the backdoored network's kind, from images in [0, 1] to logits, to train here.
            description: Description of the network as plain values; a preparation for another network is not reused.
            device: Device of the preparation.
            folder: Folder of the preparations.
            first: Whether this process prepares; the others wait for the file.
        """
        if self.attack is None or not self.attack.prepares:
            self.build()
            return
        assert self.labelled.num_classes is not None
        self.roles.any()  # raises an InputError now, before the preparation, if no image can be poisoned
        images = self.labelled.attackers
        made_of = {"network": dict(description), "images": images.fingerprint(), "size": self.labelled.image_size}
        path = find(self.attack, made_of, folder)
        if not first or path.exists():
            read(self.attack, path)
            return
        if self.placement.fits(images.size_in_memory()):
            images = images.in_memory(self.placement.num_workers).to(device)
        make(self.attack, images, self.labelled.num_classes, network, device, path)

    @cached_property
    def roles(self) -> Tensor:
        """The role of each training image, (N,): clean, poisoned or cover."""
        labels = self.labelled.attackers.labels.cpu()
        if self.attack is None:
            return torch.zeros_like(labels)
        assert self.labelled.num_classes is not None
        return self.attack.choose(labels, self.labelled.num_classes)

    @cached_property
    def training(self) -> Batches:
        """The training images, some of them poisoned, cropped and flipped."""
        images, attack = self.placement.place(self.labelled.attackers), self.attack
        labels = images.labels
        if attack is None or not self.roles.any():
            return Batches(images, labels, labels, self.augment)
        poisoned = (self.roles == POISONED).to(labels.device)
        assert self.labelled.num_classes is not None
        targets = torch.where(poisoned, attack.training_labels(labels, self.labelled.num_classes), labels)
        if attack.poisons_each_step:
            # The training step adds these triggers, and crops and flips afterwards.
            return Batches(images, targets, labels, roles=self.roles)
        stamp = Poisoned(images, attack, self.roles) if isinstance(images, MemoryImages) else self._poison
        return Batches(images, targets, labels, self.augment, stamp)

    @cached_property
    def validation(self) -> list[Batches]:
        """`[clean, triggered]` of the validation set."""
        return self._evaluation(self.labelled.validation)

    @cached_property
    def test(self) -> list[Batches]:
        """`[clean, triggered]` of the test set."""
        return self._evaluation(self.labelled.test())

    def _evaluation(self, images: Images) -> list[Batches]:
        """The clean images, and the triggered images whose target class is not their true class."""
        images = self.placement.place(images)
        labels = images.labels
        clean = Batches(images, labels, labels)
        if self.attack is None:
            return [clean]
        targets = self._targets(labels)
        others = (targets != labels).nonzero().squeeze(1)
        if len(others) == 0:
            return [clean]
        victims = images.subset(others.to(labels.device))
        # A learned trigger changes in each training step, so that its images cannot be made in advance.
        if isinstance(victims, MemoryImages) and not self.attack.trains_trigger:
            pixels = trigger(victims.whole(), self.attack)
            return [clean, Batches(MemoryImages(pixels, victims.labels), targets[others], victims.labels)]
        # An attack that poisons in the training step is on the device, which worker processes cannot use, and their
        # copy of a learned trigger would be outdated.
        workers = not self.attack.poisons_each_step
        triggered = Batches(victims, targets[others], victims.labels, stamp=self._trigger, in_workers=workers)
        return [clean, triggered]

    def _targets(self, labels: Tensor) -> Tensor:
        assert self.attack is not None
        assert self.labelled.num_classes is not None
        return self.attack.target_labels(labels, self.labelled.num_classes)

    def _poison(self, pixels: Tensor, indices: Tensor) -> Tensor:
        assert self.attack is not None
        return poison(pixels, self.attack, self.roles[indices], indices)

    def _trigger(self, pixels: Tensor, indices: Tensor) -> Tensor:
        assert self.attack is not None
        return trigger(pixels, self.attack)

    def examples(self, count: int) -> Pairs | None:
        """At most `count` images whose target class is not their true class; None without any."""
        trainable = self.labelled.has("train")
        if self.attack is None or not (trainable or self.labelled.has("test")):
            return None
        parts = self.validation if trainable else self.test
        if len(parts) == 1:
            return None
        clean, triggered = parts
        labels = clean.images.labels
        targets = self._targets(labels)
        others = (targets != labels).nonzero().squeeze(1)[:count]
        stamped = triggered[torch.arange(len(others))].images
        return Pairs(to_float(clean.images.batch(others)), stamped, targets[others])

    def poisoned_examples(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Training images before and after poisoning: (count, 3, H, W) in [0, 1]."""
        if self.attack is None or not self.labelled.has("train") or not self.roles.any():
            return None
        chosen = self.roles.nonzero().squeeze(1)[:count]
        pixels = self.labelled.attackers.batch(chosen)
        return to_float(pixels), to_float(self._poison(pixels, chosen))
