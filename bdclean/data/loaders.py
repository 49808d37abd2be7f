"""Data loaders of an experiment, for the attacker's and the defender's images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bdclean.attacks import Attack
from bdclean.checkpoint import Triggered
from bdclean.data.attacker import Attacker
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch
from bdclean.data.batches import Batches, make_loader
from bdclean.data.defender import Defence, Defender
from bdclean.data.images import Images, to_float
from bdclean.data.placement import Placement
from bdclean.data.sampler import BatchSampler
from bdclean.data.sources import Source
from bdclean.data.splits import DEFENDER_LIMIT, Labelled
from bdclean.data.triggered import triggered_batches
from bdclean.errors import Given, InputError
from bdclean.training import BATCH, at_once

Own = TypeVar("Own", bound="Loaders")


class Loaders(LightningDataModule):
    """Loaders of the attacker's and the defender's images.

    Args:
        sets: The labelled images.
        unlabeled: Source of other images for the defender.
        attack: The attack; None to keep all images clean.
        placement: Where images are kept.
        augment: Crops and flips in training.
        num_unlabeled: Maximum number of unlabeled images; None for all held-out images, or 5,000 of another source.
        num_agreement: Number of unlabeled images that are not trained on, to measure agreement; None for the default.
        batch_size: Number of images in a step, over all processes; None for 128.
        root: Folder of torchvision's data sets and of the preparations of attacks.
        seed: Seed of the splits and of the order of the images.
    """

    def __init__(
        self,
        sets: Labelled,
        unlabeled: Source | None,
        attack: Attack | None,
        placement: Placement,
        augment: Augmentation,
        num_unlabeled: int | None,
        num_agreement: int | None,
        batch_size: int | None,
        root: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.sets = sets
        self.source = sets.source
        self.image_size = sets.image_size
        self.unlabeled = unlabeled
        self.attack = attack
        self.placement = placement
        self.augment = augment
        self.num_unlabeled = num_unlabeled
        self.num_agreement = num_agreement
        self.asked_batch_size = batch_size
        self.root = Path(root)
        self.seed = seed
        self.attacker = Attacker(attack, sets, placement, augment)
        self.training: Attacker | Defence = self.attacker
        """The side whose images the training loader yields."""
        self.triggered: Triggered | None = None
        """Triggered test images from the suspect's file; not used if there is an attack."""

    def tell(self, device: torch.device, processes: int, num_classes: int) -> None:
        """Set what the engine knows of the training, before the first loader is made.

        Args:
            device: Device for images in memory.
            processes: Number of processes of the training.
            num_classes: Number of classes of the network, some of which may have no images.
        """
        self.placement.device, self.placement.processes = device, processes
        if self.source is not None:
            self.sets.num_classes = num_classes

    # Properties

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None without labelled images."""
        return self.sets.num_classes

    @property
    def batch_size(self) -> int:
        """Number of images that go through the network at once, over all processes together."""
        return self.asked_batch_size or min(BATCH, self.placement.processes * at_once(self.image_size**2))

    @property
    def accumulate(self) -> int:
        """Number of batches in an optimisation step."""
        return 1 if self.asked_batch_size else round(BATCH / self.batch_size)

    @property
    def labelled(self) -> bool:
        """Whether there are labelled test images."""
        return self.sets.has("test")

    @property
    def trainable(self) -> bool:
        """Whether there are labelled training images."""
        return self.sets.has("train")

    @property
    def poisoning(self) -> str | None:
        """Name of the attack; None if no training images are poisoned."""
        return type(self.attack).__name__ if self.attack is not None and self.attack.poison_rate > 0 else None

    @property
    def numbered(self) -> bool:
        """Whether labels are class numbers, of which some may have no images."""
        return self.source is not None and self.source.numbered

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers; empty if unknown."""
        names = () if self.source is None else self.source.class_names
        return names if len(names) == self.num_classes else ()

    def trained_on(self, description: Mapping[str, Any]) -> int:
        """Number of held-out images that another split used for training: see `Labelled.trained_on`."""
        return 0 if self.unlabeled is not None else self.sets.trained_on(description)

    # Preparation

    def prepare_data(self) -> None:
        """Download what is missing, in one process."""
        for source in (self.source, self.unlabeled):
            if source is not None:
                source.download()

    def setup(self, stage: str) -> None:
        """Called by Lightning: let the attack build its trigger, unless it has one."""
        self.attacker.build()

    def prepare_attack(
        self, network: Callable[[], nn.Module], description: Mapping[str, Any], device: torch.device, first: bool
    ) -> None:
        """Let the attack prepare before training, or read its preparation from `root`: see `Attacker.prepare`."""
        if first and self.attack is not None and self.attack.prepares:
            self.prepare_data()
        self.attacker.prepare(network, description, device, self.root / "prepared", first)

    # The defender's images

    def drawn(self, unlabeled: Source) -> Images:
        """All images of a source without labels, or as many as the program draws."""
        count = self.num_unlabeled or DEFENDER_LIMIT
        return unlabeled.load_unlabeled(self.image_size, count, self.seed).resized(self.sets.resize)

    @cached_property
    def defender(self) -> Defender:
        """The defender's images."""
        if self.unlabeled is None:
            if not self.trainable:
                raise InputError(
                    "data.unlabeled",
                    None,
                    f"needed, as {Given('data.source')} has no training part to take images from",
                )
            images, most = self.sets.held_out, None
        else:
            images, most = self.drawn(self.unlabeled), DEFENDER_LIMIT
        measured = 0 if self.labelled else None
        agreement = measured if self.num_agreement is None else self.num_agreement
        loose = self.unlabeled is not None
        return Defender(images, loose, self.num_unlabeled, most, agreement, self.seed, self.placement)

    def defence(self: Own, labels: bool, choosing: float) -> Own:
        """The same data with the defender's images for training.

        Args:
            labels: Whether batches have target and true labels, which are equal; otherwise they have only images.
            choosing: Share of the images that is kept from training, for selection.

        Raises:
            InputError: If the images have no labels but `labels` is set, or there are too few.
        """
        if labels and self.unlabeled is not None:
            raise InputError("method.supervision", "labels", f"{self.unlabeled.name} has images without labels")
        training = self.defender.defence(labels, choosing, self.augment)
        defence = copy.copy(self)
        defence.training = training
        return defence

    @property
    def trained_count(self) -> int:
        """In a `defence`, the number of training images."""
        assert isinstance(self.training, Defence)
        return len(self.training.parts[0])

    def unlabeled_examples(self, count: int) -> Tensor:
        """Some of the defender's images, without augmentation: (count, 3, H, W) in [0, 1]."""
        images = self.defender.own
        return to_float(images.batch(torch.arange(min(count, len(images)))))

    # Loaders

    def train_dataloader(self) -> DataLoader[Batch]:
        """The attacker's images, some of them poisoned; in a `defence` the defender's."""
        return self.loader(self.training.training, shuffle=True)

    def defender_dataloader(self, choosing: bool) -> DataLoader[Batch]:
        """In a `defence`, the training or selection images without augmentation; all images in each process."""
        assert isinstance(self.training, Defence)
        loaders = self.training.loaders
        if choosing not in loaders:
            loaders[choosing] = self.loader(self.training.parts[choosing].batches, shared=False)
        return loaders[choosing]

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """`[clean, triggered]` of the validation set, or held-out images without labels."""
        parts = self.attacker.validation if self.trainable else [self.defender.agreement.batches]
        return [self.loader(part) for part in parts if len(part)]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """`[clean, triggered]` of the test set; without labelled test images, held-out unlabeled images first."""
        parts = self.attacker.test if self.labelled else [self.defender.agreement.batches]
        if self.attack is None and self._triggered_batches is not None:
            parts = [parts[0], self._triggered_batches]
        return [self.loader(part) for part in parts]

    @cached_property
    def _triggered_batches(self) -> Batches | None:
        return triggered_batches(self.triggered, self.source, self.image_size, self.placement)

    def loader(self, batches: Batches, shuffle: bool = False, shared: bool = True) -> DataLoader[Batch]:
        """Make a loader; with `shared`, each process gets its share of every batch, otherwise the whole batch."""
        sampler = BatchSampler(len(batches), self.batch_size, shuffle, self.seed, shared)
        return make_loader(batches, sampler, self.placement)
