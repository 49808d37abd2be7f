"""The loaders of a backdoor experiment: clean, poisoned, triggered, unlabeled."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import pil_to_tensor

from bdclean import InputError, first_line, within
from bdclean.attacks import Attack
from bdclean.attacks.roles import POISONED
from bdclean.batching import BATCH, LARGEST_SIDE, at_once
from bdclean.checkpoint import Triggered
from bdclean.data.batches import Batches, BatchSampler, Poisoned, poison, random_crop_flip, to_float, trigger
from bdclean.data.defender import DEFENDER_LIMIT, Defender, Part, readable, split
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images, MemoryImages
from bdclean.data.notices import say
from bdclean.data.prepared import find, make, read
from bdclean.data.sources import Source

MOST_WORKERS = 1024
"""Processes that decode images: more would fill the memory of any machine."""
MEMORY_LIMIT = 2**31
"""A set of images of up to so many bytes is kept in memory, on the device."""


class PoisonDataModule(LightningDataModule):
    """Clean, poisoned, triggered and unlabeled images, the same ones for the same seeds on any number of processes.

    The training part is split into three: images for the defender, held out from the attacker; a validation set; and
    the attacker's training set, of which some images carry the trigger. Images are in [0, 1], (N, 3, H, W).

    - The training loader mixes clean and poisoned images; it and the loaders for evaluation yield images, target
      labels (what the attacker wants) and true labels. On clean images the two are equal.
    - The validation and test loaders are `[clean, triggered]`; the triggered one leaves out the images whose target is
      their own class. Without an attack, or without such images, there is only the first, without a source there is
      none.
    - In defence the training loader yields the defender's images, bare, so that no label can leak, unless a method is
      told to use labels. Where there is no labelled test part, some of these images are held out, bare too, and stand
      in its place.

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
        self.num_classes = None if self.source is None else self.source.num_classes
        """How many classes there are: of the labelled images, or where some of these may be missing of the network."""
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
        self.num_held_out = num_held_out
        self.num_val = num_val
        self.num_train = num_train
        self.image_size = size
        self.asked_batch_size = batch_size
        self.triggered: Triggered | None = None
        """Triggered test images that came with the suspect; an attack that is asked for takes their place."""
        self.augment = (size // 8 if crop_padding is None else crop_padding, flip)
        self.keep_in_memory = in_memory
        self.num_workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        self.root = Path(root)
        self.seed = seed
        self._defence: list[Part] = []
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

    @property
    def batch_size(self) -> int:
        """Images that go through the network at once, over all processes together."""
        processes = self.trainer.world_size if self.trainer else 1
        return self.asked_batch_size or min(BATCH, processes * at_once(self.image_size**2))

    @property
    def accumulate(self) -> int:
        """How many batches make a step."""
        return 1 if self.asked_batch_size else round(BATCH / self.batch_size)

    @property
    def labelled(self) -> bool:
        """Whether there are labelled test images."""
        return self._has("test")

    @property
    def poisoning(self) -> str | None:
        """The attack that the training images are poisoned by, if they are."""
        return type(self.attack).__name__ if self.attack is not None and self.attack.poison_rate > 0 else None

    @property
    def trainable(self) -> bool:
        """Whether there are labelled training images."""
        return self._has("train")

    @property
    def numbered(self) -> bool:
        """Whether the labels are numbers of classes of which some may be missing."""
        return self.source is not None and self.source.numbered

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, in the order of their numbers; empty if that is not known."""
        names = () if self.source is None else self.source.class_names
        return names if len(names) == self.num_classes else ()

    def prepare_data(self) -> None:
        """Download what is missing, in one process."""
        for source in (self.source, self.unlabeled):
            if source is not None:
                source.download()

    # Splits

    def _load(self, split: str) -> Images:
        """The labelled images of a part."""
        assert self.source is not None
        return self.source.load(split, self.image_size)

    @cached_property
    def _training_part(self) -> Images:
        return self._load("train")

    @cached_property
    def _splits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the validation, the defender's and the attacker's images in the training part."""
        return split(len(self._training_part), self.seed, self.num_val, self.num_held_out, self.num_train)

    def trained_on(self, description: Mapping[str, Any]) -> int:
        """How many of the images that are held out here are the attacker's elsewhere.

        Args:
            description: What a checkpoint says of its images.
        """
        if self.unlabeled is not None or self.source is None or description.get("source") != self.source.name:
            return 0
        options = (description.get(name) for name in ("num_val", "num_held_out", "num_train"))
        theirs = split(len(self._training_part), description.get("seed", 0), *options)[2]
        return int(torch.isin(self._splits[1], theirs).sum())

    @cached_property
    def _attackers(self) -> Images:
        """The attacker's images, clean."""
        return self._training_part.subset(self._splits[2])

    @cached_property
    def _roles(self) -> Tensor:
        """What each of the attacker's images is."""
        assert self.attack is not None
        assert self.num_classes is not None
        return self.attack.choose(self._attackers.labels.cpu(), self.num_classes)

    @cached_property
    def _train(self) -> Batches:
        images, attack = self._place(self._attackers), self.attack
        labels = images.labels
        if attack is None or not self._roles.any():
            return Batches(images, (labels, labels), self.augment)
        assert self.num_classes is not None
        wanted = attack.target_labels(labels, self.num_classes)
        columns = (torch.where((self._roles == POISONED).to(labels.device), wanted, labels), labels)
        if attack.dynamic:
            # Triggers come before crops and flips: else a network would know them by what they do to the padding.
            return Batches(images, columns, roles=self._roles)
        stamp = Poisoned(images, attack, self._roles) if isinstance(images, MemoryImages) else self._poison
        return Batches(images, columns, self.augment, stamp)

    def augmented(self, images: Tensor) -> Tensor:
        """Random crops and flips of training images, (N, C, H, W), for an attack that acts in the training step."""
        return random_crop_flip(images.permute(0, 2, 3, 1), *self.augment).permute(0, 3, 1, 2)

    def _poison(self, pixels: Tensor, indices: Tensor) -> Tensor:
        assert self.attack is not None
        return poison(pixels, self.attack, self._roles[indices], indices)

    def _trigger(self, pixels: Tensor, indices: Tensor) -> Tensor:
        assert self.attack is not None
        return trigger(pixels, self.attack)

    @cached_property
    def _val(self) -> list[Batches]:
        return self._evaluation(self._training_part.subset(self._splits[0]))

    @cached_property
    def _test(self) -> list[Batches]:
        parts = self._evaluation(self._load("test")) if self._has("test") else [self._agreement]
        if self.triggered is None or self.attack is not None:
            return parts
        labels, targets, images = self.triggered.labels, self.triggered.targets, self.triggered.images
        return [parts[0], Batches(self._place(self._as_images(images, labels)), (targets, labels))]

    def _as_images(self, images: list[Path] | list[Image.Image], labels: Tensor) -> Images:
        if isinstance(images[0], Path):
            return FileImages(images, self.image_size, "--ckpt", labels)
        pixels = [pil_to_tensor(image.convert("RGB")).permute(1, 2, 0) for image in images]
        return ArrayImages(torch.stack(pixels), self.image_size, labels)

    @cached_property
    def _defender(self) -> Defender:
        """The defender's images."""
        if self.unlabeled is None:
            if not self._has("train"):
                raise InputError("--data.unlabeled: needed, as --data.source has no training part to take images from")
            images, most = self._training_part.subset(self._splits[1]), None
        else:
            most = DEFENDER_LIMIT
            images = self.unlabeled.load_unlabeled(self.image_size, self.num_unlabeled or most, self.seed)
        measured = 0 if self._has("test") else None
        agreement = measured if self.num_agreement is None else self.num_agreement
        loose = self.unlabeled is not None
        return Defender(images, loose, self.num_unlabeled, most, agreement, self.seed, self.num_workers, self._fits)

    @cached_property
    def _agreement(self) -> Batches:
        return Batches(self._place(self._defender.agreement))

    @contextmanager
    def defence(self, labels: bool, choosing: float) -> Iterator[None]:
        """Within it, training is the defender's, and not the attacker's.

        Args:
            labels: Whether batches carry target and true labels, which are equal, or are bare images.
            choosing: The share of the images that is kept from training, to choose by.

        Raises:
            InputError: If the images have no labels, or are too few.
        """
        if labels and self.unlabeled is not None:
            raise InputError(f"--method.supervision labels: {self.unlabeled.name} has images without labels")
        self._defence = [Part(images, labels) for images in self._defender.split(choosing)]
        try:
            yield
        finally:
            self._defence = []

    @cached_property
    def _predicted(self) -> tuple[Images, list[str]]:
        """The images that are predicted, and a name for each: its file, or its number."""
        if self.unlabeled is not None:
            images = self.unlabeled.load_unlabeled(self.image_size, self.num_unlabeled or DEFENDER_LIMIT, self.seed)
        elif self._has("test"):
            images = self._load("test")
        else:
            raise InputError("--data.unlabeled: needed, as there are no test images to predict")
        if not isinstance(images, FileImages):
            return images, [str(number) for number in range(len(images))]
        found, unreadable = readable(images, len(images), self.num_workers, self._fits)
        left_out = set(unreadable)
        return found, [str(path) for path in images.paths if path not in left_out]

    @property
    def predicted_names(self) -> list[str]:
        """A name for each image that `predict_dataloader` gives: its file, or its number."""
        return self._predicted[1]

    def _evaluation(self, images: Images) -> list[Batches]:
        """The images clean, and those that the attack would change the class of, triggered."""
        images = self._place(images)
        labels = images.labels
        clean = Batches(images, (labels, labels))
        if self.attack is None:
            return [clean]
        assert self.num_classes is not None
        targets = self.attack.target_labels(labels, self.num_classes)
        others = (targets != labels).nonzero().squeeze(1)
        if len(others) == 0:
            return [clean]
        victims = images.subset(others.to(labels.device))
        columns = (targets[others], victims.labels)
        # What learns in the training step looks other after each.
        if isinstance(victims, MemoryImages) and not self.attack.learns:
            pixels = trigger(victims.whole(), self.attack)
            return [clean, Batches(MemoryImages(pixels, victims.labels), columns)]
        return [clean, Batches(victims, columns, stamp=self._trigger)]

    def _place(self, images: Images) -> Images:
        """Bring images into memory, onto the device, where they are few enough."""
        if not self._fits(images.size_in_memory()):
            return images
        return images.in_memory(self.num_workers).to(self._device)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _fits(self, size: int) -> bool:
        return size <= MEMORY_LIMIT if self.keep_in_memory is None else self.keep_in_memory

    def setup(self, stage: str) -> None:
        """Called by Lightning: have the attack make its trigger, unless it has one."""
        if self.attack is not None and not self.attack.built:
            self.attack.build(self.image_size)

    def prepare_attack(
        self, network: Callable[[], nn.Module], description: Mapping[str, Any], device: torch.device, first: bool
    ) -> None:
        """Have the attack make what it needs before training, or read from `root` what it made before.

        Args:
            network: Gives a network as the one to be backdoored, from images in [0, 1] to logits, to be trained here.
            description: What there is to say of it, as plain values: what was made with another one is made anew.
            device: Where that happens.
            first: Whether this process does it; others wait for what it writes.
        """
        if self.attack is None or not self.attack.prepares:
            self.setup("fit")
        else:
            assert self.num_classes is not None
            if first:
                self.prepare_data()
            self._roles.any()  # to hear now that it poisons none
            images = self._attackers
            fits = self._fits(images.size_in_memory())
            folder = self.root / "prepared"
            made_of = {"network": dict(description), "images": images.fingerprint(), "size": self.image_size}
            place = find(self.attack, made_of, folder)
            if first and not place.exists():
                images = images.in_memory(self.num_workers).to(device) if fits else images
                make(self.attack, images, self.num_classes, network, device, place)
            else:
                read(self.attack, place)

    @property
    def trained_count(self) -> int:
        """In `defence`, how many images an epoch has."""
        return len(self._defence[False].images)

    @property
    def unlabeled_count(self) -> int:
        """How many images the defender has."""
        return len(self._defender)

    @property
    def held_out_count(self) -> int:
        """How many of these no method sees."""
        return len(self._defender.agreement)

    @property
    def unreadable(self) -> list[Path]:
        """The defender's files that are no images."""
        return self._defender.unreadable

    def unlabeled_examples(self, count: int) -> Tensor:
        """Some of the defender's images, as they are: (count, 3, H, W) in [0, 1]."""
        images = self._defender.own
        return to_float(images.batch(torch.arange(min(count, len(images)))))

    def examples(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Images that the attack wants in another class, clean and triggered: (count, 3, H, W) in [0, 1]."""
        if self.attack is None or not (self._has("train") or self._has("test")):
            return None
        parts = self._val if self._has("train") else self._test
        if len(parts) == 1:
            return None
        clean, triggered = parts
        assert self.num_classes is not None
        labels = clean.images.labels
        others = (self.attack.target_labels(labels, self.num_classes) != labels).nonzero().squeeze(1)[:count]
        first = torch.arange(len(others))
        return to_float(clean.images.batch(others)), triggered[first][0]

    def poisoned_examples(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Training images as they were and as the network saw them: (count, 3, H, W) in [0, 1]."""
        if self.attack is None or not self._has("train") or not self._roles.any():
            return None
        chosen = self._roles.nonzero().squeeze(1)[:count]
        pixels = self._attackers.batch(chosen)
        return to_float(pixels), to_float(self._poison(pixels, chosen))

    # Loaders

    def train_dataloader(self) -> DataLoader[Any]:
        """The attacker's images, some of them poisoned, with target and true labels; in `defence` the defender's."""
        if not self._defence:
            return self._loader(self._train, shuffle=True)
        training = self._defence[0].batches(self._place)
        return self._loader(Batches(training.images, training.columns, self.augment), shuffle=True)

    def defender_dataloader(self, choosing: bool) -> DataLoader[Any]:
        """In `defence`, the images to train on or to choose by, as they are; the same ones for each process."""
        part = self._defence[choosing]
        if part.loader is None:
            part.loader = self._loader(part.batches(self._place), shared=False)
        return part.loader

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """`[clean, triggered]` of the validation set: images, target labels, true labels; or held-out bare images."""
        parts = self._val if self._has("train") else [self._agreement]
        return [self._loader(part) for part in parts if len(part)]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """`[clean, triggered]` of the test set: images, target labels, true labels; or held-out bare images, first."""
        return [self._loader(part) for part in self._test]

    def _has(self, split: str) -> bool:
        return self.source is not None and self.source.has(split)

    def predict_dataloader(self) -> DataLoader[Any]:
        """All unlabeled images if another source was given, else the test images; images only, in their order."""
        return self._loader(Batches(self._place(self._predicted[0])))

    def _loader(self, batches: Batches, shuffle: bool = False, shared: bool = True) -> DataLoader[Any]:
        # What acts in the training step is on the device, where worker processes cannot go; and what learns there would
        # be with them as it was when they started.
        away = batches.stamp is not None and self.attack is not None and self.attack.dynamic
        workers = 0 if away or isinstance(batches.images, MemoryImages) else self.num_workers
        return DataLoader(
            batches,
            batch_size=None,
            sampler=BatchSampler(len(batches), self.batch_size, shuffle, self.seed, shared),
            num_workers=workers,
            persistent_workers=workers > 0,
            # So that a GPU fetches them while it is at the batch before.
            pin_memory=workers > 0 and self._device.type == "cuda",
        )

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
