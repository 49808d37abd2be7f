"""The loaders of a backdoor experiment: clean, poisoned, triggered, unlabeled."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from bdclean import InputError
from bdclean.attacks import Attack
from bdclean.data.batches import Batches, BatchSampler, stamp_in_memory, to_float
from bdclean.data.images import FileImages, Images, MemoryImages
from bdclean.data.sources import Source

MEMORY_LIMIT = 2**31
"""A set of images of up to so many bytes is kept in memory, on the device."""
DEFENDER_SHARE, DEFENDER_LIMIT = 0.1, 5_000
VALIDATION_SHARE, VALIDATION_LIMIT = 0.05, 1_000


class PoisonDataModule(LightningDataModule):
    """Clean, poisoned, triggered and unlabeled images, the same ones for the same seeds on any number of processes.

    The training part is split into three: images for the defender, held out from the attacker; a validation set; and
    the attacker's training set, of which some images carry the trigger. Images are in [0, 1], (N, 3, H, W).

    - The training loader mixes clean and poisoned images; it and the loaders for evaluation yield images, target
      labels (what the attacker wants) and true labels. On clean images the two are equal.
    - The validation and test loaders are `[clean, triggered]`; the triggered one leaves out the images whose target is
      their own class. Without an attack there is only the first, without a source there is none.
    - The unlabeled loader yields bare images, so that no label can leak.

    Args:
        source: Labelled images: `shapes` (drawn by the program), a torchvision set (`cifar10`, `cifar100`, `gtsrb`,
            `svhn`, `stl10`, `mnist`, `fashion_mnist`), an `.npz` file with x_train, y_train, x_test, y_test, or a
            folder with `train/` and `test/` or `val/`, each with one folder a class.
        attack: How images are poisoned; without one they stay clean.
        unlabeled: Other images for the defender, from any source; also a folder of loose images of any size.
        num_unlabeled: How many unlabeled images are used; by default all that were held out, of another source at most
            5,000.
        num_held_out: How many images of the training part are held out from the attacker, for the defender; by default
            10 %, at most 5,000.
        num_val: How many images of the training part are for validation; by default 5 %, at most 1,000.
        num_train: Keep only so many of the attacker's training images.
        image_size: Height and width of the images, in pixels; by default the source's own.
        batch_size: Images a step over all processes together.
        crop_padding: Padding of the random crop in training, in pixels; by default an eighth of the image size.
        flip: Whether training images are mirrored at random.
        in_memory: Whether images are kept decoded, on the device; by default up to 2 GiB.
        num_workers: Processes that decode images which are not in memory; by default one a core, at most 8.
        root: Folder for torchvision's sets.
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
        num_held_out: int | None = None,
        num_val: int | None = None,
        num_train: int | None = None,
        image_size: int | None = None,
        batch_size: int = 128,
        crop_padding: int | None = None,
        flip: bool = True,
        in_memory: bool | None = None,
        num_workers: int | None = None,
        root: str = "data",
        seed: int = 0,
    ) -> None:
        super().__init__()
        bounds: tuple[tuple[str, int | None, int], ...] = (
            ("num_unlabeled", num_unlabeled, 1),
            ("num_held_out", num_held_out, 1),
            ("num_val", num_val, 1),
            ("num_train", num_train, 1),
            ("image_size", image_size, 1),
            ("batch_size", batch_size, 1),
            ("crop_padding", crop_padding, 0),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        )
        for name, value, least in bounds:
            if value is not None and value < least:
                raise InputError(f"--data.{name} {value}: must be at least {least}")
        self.source = None if source is None else Source(source, root)
        self.unlabeled = None if unlabeled is None else Source(unlabeled, root, "--data.unlabeled")
        if self.source is None and self.unlabeled is None:
            raise InputError("--data.source null: needs --data.unlabeled, or there are no images at all")
        if self.source is not None and self.source.num_classes < 2:
            raise InputError(f"--data.source {source}: has no labelled images of two classes or more")
        size = image_size or (None if self.source is None else self.source.image_size)
        if size is None:
            raise InputError(f"--data.image_size: needed, as the images of {source or unlabeled} may be of any size")
        self.attack = attack
        self.num_unlabeled = num_unlabeled
        self.num_held_out = num_held_out
        self.num_val = num_val
        self.num_train = num_train
        self.image_size = size
        self.batch_size = batch_size
        self.augment = (size // 8 if crop_padding is None else crop_padding, flip)
        self.keep_in_memory = in_memory
        self.num_workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        self.seed = seed
        self.defending = False
        """Whether training is the defender's, on unlabeled images, and not the attacker's."""
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
    def num_classes(self) -> int | None:
        """How many classes the labelled images have; None where there are none."""
        return None if self.source is None else self.source.num_classes

    def prepare_data(self) -> None:
        """Download what is missing, in one process."""
        for source in (self.source, self.unlabeled):
            if source is not None:
                source.download()

    # Splits

    @cached_property
    def _training_part(self) -> Images:
        assert self.source is not None
        return self.source.load("train", self.image_size)

    @cached_property
    def _splits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the validation, the defender's and the attacker's images in the training part."""
        total = len(self._training_part)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed))
        val = _share(self.num_val, total, VALIDATION_SHARE, VALIDATION_LIMIT)
        defender = _share(self.num_held_out, total, DEFENDER_SHARE, DEFENDER_LIMIT)
        if defender + val >= total:
            raise InputError(
                f"--data.num_held_out {defender} --data.num_val {val}: there are {total} training images in all"
            )
        return order[:val], order[val : val + defender], order[val + defender :][: self.num_train]

    @cached_property
    def _train(self) -> Batches:
        images = self._place(self._training_part.subset(self._splits[2]))
        chosen = torch.zeros(len(images), dtype=torch.bool)
        targets = images.labels
        if self.attack is not None:
            assert self.num_classes is not None
            chosen = self.attack.choose_poisoned(images.labels, self.num_classes)
            wanted = self.attack.target_labels(images.labels, self.num_classes)
            targets = torch.where(chosen, wanted, images.labels)
        return self._batches(images, (targets, images.labels), chosen, self.augment)

    @cached_property
    def _val(self) -> list[Batches]:
        return self._evaluation(self._training_part.subset(self._splits[0]))

    @cached_property
    def _test(self) -> list[Batches]:
        assert self.source is not None
        return self._evaluation(self.source.load("test", self.image_size))

    @cached_property
    def _unlabeled(self) -> Batches:
        if self.unlabeled is None:
            images, limit = self._training_part.subset(self._splits[1]), None
        else:
            images, limit = self.unlabeled.load_unlabeled(self.image_size), DEFENDER_LIMIT
        wanted = self.num_unlabeled or min(len(images), limit or len(images))
        if wanted > len(images):
            raise InputError(f"--data.num_unlabeled {wanted}: there are {len(images)} unlabeled images")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        return Batches(self._place(images.subset(order[:wanted])), augment=self.augment)

    @cached_property
    def _predicted(self) -> Images:
        if self.unlabeled is not None:
            return self.unlabeled.load_unlabeled(self.image_size)
        assert self.source is not None
        return self.source.load("test", self.image_size)

    @property
    def predicted_names(self) -> list[str]:
        """A name for each image that `predict_dataloader` gives: its file, or its number."""
        images = self._predicted
        return (
            [str(path) for path in images.paths] if isinstance(images, FileImages) else [*map(str, range(len(images)))]
        )

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
            raise InputError(f"--data.attack.target_class {self.attack.target_class}: no image has another class")
        victims = images.subset(others.to(labels.device))
        everyone = torch.ones(len(others), dtype=torch.bool)
        return [clean, self._batches(victims, (targets[others], victims.labels), everyone)]

    def _batches(
        self, images: Images, columns: tuple[Tensor, ...], chosen: Tensor, augment: tuple[int, bool] | None = None
    ) -> Batches:
        """Stamp images that are in memory now, and others as they are read."""
        if self.attack is None or not chosen.any():
            return Batches(images, columns, augment)
        if isinstance(images, MemoryImages):
            return Batches(stamp_in_memory(images, self.attack, chosen), columns, augment)
        return Batches(images, columns, augment, self.attack, chosen)

    def _place(self, images: Images) -> Images:
        """Bring images into memory, onto the device, where they are few enough."""
        keep = images.size_in_memory() <= MEMORY_LIMIT if self.keep_in_memory is None else self.keep_in_memory
        if not keep:
            return images
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        memory = images.in_memory(self.num_workers)
        return MemoryImages(memory.pixels.to(device), memory.labels)

    def draw_trigger(self) -> None:
        """Have the attack make its trigger now: what processes make for themselves is lost with them."""
        if self.attack is not None:
            self.attack.apply(torch.zeros(1, 3, self.image_size, self.image_size))

    @property
    def unlabeled_count(self) -> int:
        """How many images the defender has."""
        return len(self._unlabeled)

    def examples(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Validation images that the attack wants in another class, clean and triggered: (count, 3, H, W) in [0, 1]."""
        if self.attack is None or not self._has("train"):
            return None
        clean, triggered = self._val[0], self._val[1]
        assert self.num_classes is not None
        labels = clean.images.labels
        others = (self.attack.target_labels(labels, self.num_classes) != labels).nonzero().squeeze(1)[:count]
        first = torch.arange(len(others))
        return to_float(clean.images.batch(others)), triggered[first][0]

    # Loaders

    def train_dataloader(self) -> DataLoader[Any]:
        """The attacker's images, some of them poisoned, with target and true labels; in defence the unlabeled ones."""
        return self.unlabeled_dataloader() if self.defending else self._loader(self._train, shuffle=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """`[clean, triggered]` of the validation set, if there is one: images, target labels, true labels."""
        return [self._loader(part) for part in self._val] if self._has("train") else []

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """`[clean, triggered]` of the test set, if there is one: images, target labels, true labels."""
        return [self._loader(part) for part in self._test] if self._has("test") else []

    def _has(self, split: str) -> bool:
        return self.source is not None and self.source.has(split)

    def predict_dataloader(self) -> DataLoader[Any]:
        """All unlabeled images if another source was given, else the test images; images only, in their order."""
        return self._loader(Batches(self._place(self._predicted)))

    def unlabeled_dataloader(self) -> DataLoader[Any]:
        """The defender's images, augmented, without anything else."""
        return self._loader(self._unlabeled, shuffle=True)

    def _loader(self, batches: Batches, shuffle: bool = False) -> DataLoader[Any]:
        workers = 0 if isinstance(batches.images, MemoryImages) else self.num_workers
        return DataLoader(
            batches,
            batch_size=None,
            sampler=BatchSampler(len(batches), self.batch_size, shuffle, self.seed),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The trigger, so that ASR can be measured from the checkpoint alone."""
        return {"trigger": {} if self.attack is None else self.attack.state_dict()}


def _share(number: int | None, total: int, share: float, limit: int) -> int:
    return min(round(share * total), limit) if number is None else number
