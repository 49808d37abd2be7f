"""The loaders of a backdoor experiment: clean, poisoned, triggered, unlabeled."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bdclean import InputError, first_line, within
from bdclean.attacks import Attack
from bdclean.batching import BATCH, LARGEST_SIDE, at_once
from bdclean.checkpoint import Triggered
from bdclean.data.attacker import Attacker
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch
from bdclean.data.batches import Batches, make_loader
from bdclean.data.defender import Defence, Defender, readable
from bdclean.data.files import FileImages
from bdclean.data.images import Images, to_float
from bdclean.data.notices import say
from bdclean.data.placement import Placement
from bdclean.data.sampler import BatchSampler
from bdclean.data.sources import Source
from bdclean.data.splits import DEFENDER_LIMIT, Labelled
from bdclean.data.triggered import triggered_batches

MOST_WORKERS = 1024
"""Processes that decode images: more would fill the memory of any machine."""


class PoisonDataModule(LightningDataModule):
    """Clean, poisoned, triggered and unlabeled images, the same ones for the same seeds on any number of processes.

    The training part is split into three: images for the defender, held out from the attacker; a validation set; and
    the attacker's training set, of which some images carry the trigger. Images are in [0, 1], (N, 3, H, W).

    - The training loader mixes clean and poisoned images; it and the loaders for evaluation yield a Batch with
      target labels (what the attacker wants) and true labels. On clean images the two are equal.
    - The validation and test loaders are `[clean, triggered]`; the triggered one leaves out the images whose target is
      their own class. Without an attack, or without such images, there is only the first, without a source there is
      none.
    - For a method, `defence` gives the same data with the defender's images for training, without labels, so that none
      can leak, unless the method uses labels. Where there is no labelled test part, some of these images are held out,
      without labels too, and stand in its place.

    Args:
        source: Labelled images: `shapes` (drawn by the program), a torchvision set (`cifar10`, `cifar100`, `gtsrb`,
            `svhn`, `stl10`, `mnist`, `fashion_mnist`), an `.npz` file with x_train, y_train, x_test, y_test, or a
            folder with `train/` and `test/` or `val/`, each with one folder a class, or just the folders of the
            classes: a test set. Folders called by numbers are the classes of these numbers, others go by their names.
            The folders of Tiny-ImageNet and GTSRB are read as they are, and so are images beside a file labels.csv
            with the columns filename,label.
        attack: How images are poisoned; without one they stay clean.
        unlabeled: Other images for the defender, from any source; also a folder of loose images of any size, an `.npy`
            file, or `procedural`, which are drawn by the program.
        num_unlabeled: How many unlabeled images are used at most; by default all that were held out, of another source
            5,000.
        num_agreement: How many of these are kept from training, to measure the agreement with the suspect on; by
            default none where there is a labelled test part, else 10 %, at most 1,000.
        num_held_out: How many images of the training part are held out from the attacker, for the defender; by default
            10 %, at most 5,000.
        num_val: How many images of the training part are for validation; by default 5 %, at most 1,000.
        num_train: Keep only so many of the attacker's training images.
        image_size: Height and width of the images, in pixels; by default the source's own.
        batch_size: Images a step over all processes together; by default 128. Above 64 pixels they go through the
            network in pieces, whose gradients are added up.
        crop_padding: Padding of the random crop in training, in pixels; by default an eighth of the image size.
        flip: Whether training images are mirrored at random.
        in_memory: Whether images are kept decoded, on the device; by default up to 2 GiB.
        num_workers: Processes that decode images which are not in memory; by default one a core, at most 8.
        root: Folder for torchvision's sets, and for what attacks make before training (in `prepared/`).
        seed: Fixes the splits and the order of the images.

    Raises:
        InputError: If an option cannot be what it is.
    """

    def __init__(
        self,
        source: str | None = "shapes",
        attack: Attack | None = None,
        unlabeled: str | None = None,
        num_unlabeled: int | None = None,
        num_agreement: int | None = None,
        num_held_out: int | None = None,
        num_val: int | None = None,
        num_train: int | None = None,
        image_size: int | None = None,
        batch_size: int | None = None,
        crop_padding: int | None = None,
        flip: bool = True,
        in_memory: bool | None = None,
        num_workers: int | None = None,
        root: str = "data",
        seed: int = 0,
    ) -> None:
        super().__init__()
        bounds: tuple[tuple[str, int | None, int, float], ...] = (
            ("num_unlabeled", num_unlabeled, 1, math.inf),
            ("num_agreement", num_agreement, 1, math.inf),
            ("num_held_out", num_held_out, 1, math.inf),
            ("num_val", num_val, 1, math.inf),
            ("num_train", num_train, 1, math.inf),
            ("image_size", image_size, 1, LARGEST_SIDE),
            ("batch_size", batch_size, 1, math.inf),
            ("num_workers", num_workers, 0, MOST_WORKERS),
            ("seed", seed, 0, 2**63 - 1),
        )
        for name, value, least, most in bounds:
            if value is not None:
                within(f"--data.{name}", value, least, most)
        self.source = None if source is None else Source(source, root)
        self.unlabeled = None if unlabeled is None else Source(unlabeled, root, "--data.unlabeled")
        if self.source is None and self.unlabeled is None:
            raise InputError("--data.source null: needs --data.unlabeled, or there are no images at all")
        if self.source is not None and self.source.num_classes < 2:
            raise InputError(f"--data.source {source}: has no labelled images of two classes or more")
        size = image_size or (None if self.source is None else self.source.image_size)
        if size is None:
            raise InputError(f"--data.image_size: needed, as the images of {source or unlabeled} may be of any size")
        if crop_padding is not None:
            within("--data.crop_padding", crop_padding, 0, size)
        for notice in () if self.source is None else self.source.notices:
            say(notice)
        self.attack = attack
        self.num_unlabeled = num_unlabeled
        self.num_agreement = num_agreement
        self.image_size = size
        self.asked_batch_size = batch_size
        self.triggered: Triggered | None = None
        """Triggered test images that came with the suspect; an attack that is asked for takes their place."""
        self.augment = Augmentation(size // 8 if crop_padding is None else crop_padding, flip)
        workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        self.placement = Placement(in_memory, workers)
        self.sets = Labelled(self.source, size, seed, num_val, num_held_out, num_train)
        self.attacker = Attacker(attack, self.sets, self.placement, self.augment)
        self.training: Attacker | Defence = self.attacker
        """Whose images the training loader gives."""
        self.root = Path(root)
        self.seed = seed
        description: dict[str, Any] = {
            "source": source,
            "attack": None if attack is None else type(attack).__name__,
            "attack_options": {} if attack is None else attack.options(),
            "num_held_out": num_held_out,
            "num_val": num_val,
            "num_train": num_train,
            "image_size": size,
            "crop_padding": crop_padding,
            "flip": flip,
            "seed": seed,
        }
        # Plain values only, so that a checkpoint can be read without making objects.
        self.save_hyperparameters(description, logger=False)

    def tell(self, device: torch.device, processes: int, num_classes: int) -> None:
        """Say what the engine knows, and the images do not: before the first loader is made.

        Args:
            device: Where images in memory are.
            processes: Of the training, together.
            num_classes: How many classes the network has: of those that are numbered some may have no images.
        """
        self.placement.device, self.placement.processes = device, processes
        if self.source is not None:
            self.sets.num_classes = num_classes

    # What there is

    @property
    def num_classes(self) -> int | None:
        """How many classes there are; None without labelled images."""
        return self.sets.num_classes

    @property
    def batch_size(self) -> int:
        """Images that go through the network at once, over all processes together."""
        return self.asked_batch_size or min(BATCH, self.placement.processes * at_once(self.image_size**2))

    @property
    def accumulate(self) -> int:
        """How many batches make a step."""
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
        """The attack that the training images are poisoned by, if they are."""
        return type(self.attack).__name__ if self.attack is not None and self.attack.poison_rate > 0 else None

    @property
    def numbered(self) -> bool:
        """Whether the labels are numbers of classes of which some may be missing."""
        return self.source is not None and self.source.numbered

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, in the order of their numbers; empty if that is not known."""
        names = () if self.source is None else self.source.class_names
        return names if len(names) == self.num_classes else ()

    def trained_on(self, description: Mapping[str, Any]) -> int:
        """How many of the held-out images are the attacker's elsewhere: as `Labelled.trained_on`."""
        return 0 if self.unlabeled is not None else self.sets.trained_on(description)

    # Before the first batch

    def prepare_data(self) -> None:
        """Download what is missing, in one process."""
        for source in (self.source, self.unlabeled):
            if source is not None:
                source.download()

    def setup(self, stage: str) -> None:
        """Called by Lightning: have the attack make its trigger, unless it has one."""
        self.attacker.build()

    def prepare_attack(
        self, network: Callable[[], nn.Module], description: Mapping[str, Any], device: torch.device, first: bool
    ) -> None:
        """Have the attack make what it needs before training, or read from `root` what it made before.

        Args:
            network: As in `Attacker.prepare`.
            description: As in `Attacker.prepare`.
            device: As in `Attacker.prepare`.
            first: As in `Attacker.prepare`.
        """
        if first and self.attack is not None and self.attack.prepares:
            self.prepare_data()
        self.attacker.prepare(network, description, device, self.root / "prepared", first)

    # The defender's images

    @cached_property
    def defender(self) -> Defender:
        """The defender's images."""
        if self.unlabeled is None:
            if not self.trainable:
                raise InputError("--data.unlabeled: needed, as --data.source has no training part to take images from")
            images, most = self.sets.held_out, None
        else:
            most = DEFENDER_LIMIT
            images = self.unlabeled.load_unlabeled(self.image_size, self.num_unlabeled or most, self.seed)
        measured = 0 if self.labelled else None
        agreement = measured if self.num_agreement is None else self.num_agreement
        loose = self.unlabeled is not None
        return Defender(images, loose, self.num_unlabeled, most, agreement, self.seed, self.placement)

    def defence(self, labels: bool, choosing: float) -> PoisonDataModule:
        """The same images, with the defender's for training.

        Args:
            labels: Whether batches carry target and true labels, which are equal, or images alone.
            choosing: The share of the images that is kept from training, to choose by.

        Raises:
            InputError: If the images have no labels, or are too few.
        """
        if labels and self.unlabeled is not None:
            raise InputError(f"--method.supervision labels: {self.unlabeled.name} has images without labels")
        training = self.defender.defence(labels, choosing, self.augment)
        defence = copy.copy(self)
        defence.training = training
        return defence

    @property
    def trained_count(self) -> int:
        """In a `defence`, how many images an epoch has."""
        assert isinstance(self.training, Defence)
        return len(self.training.parts[0])

    def unlabeled_examples(self, count: int) -> Tensor:
        """Some of the defender's images, as they are: (count, 3, H, W) in [0, 1]."""
        images = self.defender.own
        return to_float(images.batch(torch.arange(min(count, len(images)))))

    # Loaders

    def train_dataloader(self) -> DataLoader[Batch]:
        """The attacker's images, some of them poisoned; in a `defence` the defender's."""
        return self._loader(self.training.training, shuffle=True)

    def defender_dataloader(self, choosing: bool) -> DataLoader[Batch]:
        """In a `defence`, the images to train on or to choose by, as they are; the same ones for each process."""
        assert isinstance(self.training, Defence)
        loaders = self.training.loaders
        if choosing not in loaders:
            loaders[choosing] = self._loader(self.training.parts[choosing].batches, shared=False)
        return loaders[choosing]

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """`[clean, triggered]` of the validation set, or held-out images without labels."""
        parts = self.attacker.validation if self.trainable else [self.defender.agreement.batches]
        return [self._loader(part) for part in parts if len(part)]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """`[clean, triggered]` of the test set; where that has no labelled images, first held-out ones without."""
        parts = self.attacker.test if self.labelled else [self.defender.agreement.batches]
        if self.attack is None and self._brought is not None:
            parts = [parts[0], self._brought]
        return [self._loader(part) for part in parts]

    @cached_property
    def _brought(self) -> Batches | None:
        if self.triggered is None:
            return None
        return triggered_batches(self.triggered, self.image_size, self.placement)

    @cached_property
    def predicted(self) -> tuple[Images, list[str]]:
        """The images that are predicted, and a name for each: its file, or its number."""
        if self.unlabeled is not None:
            images = self.unlabeled.load_unlabeled(self.image_size, self.num_unlabeled or DEFENDER_LIMIT, self.seed)
        elif self.labelled:
            images = self.sets.test()
        else:
            raise InputError("--data.unlabeled: needed, as there are no test images to predict")
        if not isinstance(images, FileImages):
            return images, [str(number) for number in range(len(images))]
        found, unreadable = readable(images, len(images), self.placement)
        left_out = set(unreadable)
        return found, [str(path) for path in images.paths if path not in left_out]

    def predict_dataloader(self) -> DataLoader[Batch]:
        """All unlabeled images if another source was given, else the test images; images only, in their order."""
        return self._loader(Batches(self.placement.place(self.predicted[0])))

    def _loader(self, batches: Batches, shuffle: bool = False, shared: bool = True) -> DataLoader[Batch]:
        sampler = BatchSampler(len(batches), self.batch_size, shuffle, self.seed, shared)
        return make_loader(batches, sampler, self.placement)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The trigger, so that ASR can be measured from the checkpoint alone."""
        return {"trigger": {} if self.attack is None else self.attack.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the trigger of an interrupted run, which may have learned."""
        if self.attack is not None:
            name = type(self.attack).__name__
            try:
                self.attack.restore(state_dict["trigger"])
            except (RuntimeError, KeyError) as error:
                raise InputError(f"--ckpt_path: its trigger is no {name} ({first_line(error)})") from error
