"""The images of a backdoor experiment: clean, poisoned, triggered and unlabeled."""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import Any

from torch.utils.data import DataLoader

from bdclean import first_line
from bdclean.attacks import Attack
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch
from bdclean.data.batches import Batches
from bdclean.data.defender import named
from bdclean.data.images import Images
from bdclean.data.loaders import Loaders
from bdclean.data.notices import say
from bdclean.data.placement import Placement
from bdclean.data.sources import Source, open_source
from bdclean.data.splits import Labelled
from bdclean.errors import Given, InputError, within
from bdclean.resizing import Resize, parse
from bdclean.training import LARGEST_SIDE

MOST_WORKERS = 1024
"""Maximum number of processes that decode images; more would fill the memory of any machine."""


class PoisonDataModule(Loaders):
    """Clean, poisoned, triggered and unlabeled images, the same ones for the same seeds on any number of processes.

    The training part is split into three: images for the defender, held out from the attacker; a validation set; and
    the attacker's training set, of which some images carry the trigger. Images are in [0, 1], (N, 3, H, W).

    - The training loader mixes clean and poisoned images; it and the loaders for evaluation yield a Batch with
      target labels (the attacker's) and true labels. On clean images the two are equal.
    - The validation and test loaders are `[clean, triggered]`; the triggered one leaves out the images whose target is
      their true class. Without an attack, or without such images, there is only the first; without a source there is
      none.
    - For a method, `defence` returns the same data with the defender's images for training, without labels, so that
      none can leak, unless the method uses labels. Where there is no labelled test part, some of these images are held
      out, without labels too, and replace it.

    Args:
        source: Labelled images: `shapes` (drawn by the program); a torchvision set (`cifar10`, `cifar100`, `gtsrb`,
            `svhn`, `stl10`, `mnist`, `fashion_mnist`); an `.npz` file with x_train, y_train, x_test, y_test, or with
            images and labels, or data and targets; a set that `bdclean poison` wrote; a folder with `train/` and
            `test/` or `val/`, each with one folder for each class; or a folder with one folder for each class, which is
            a test set. Folders named by numbers are the classes of these numbers; others are numbered in alphabetical
            order. Tiny-ImageNet, GTSRB and images beside a file labels.csv (columns filename,label) are read as they
            are.
        attack: The attack that poisons training images and puts the trigger on test images. By default the attack in
            the checkpoint, or else none.
        unlabeled: Images for the defender: any source, a folder of images of any size, a `.tar` file with images or a
            folder of such files (WebDataset), a folder that the library `datasets` saved (`save_to_disk`), an `.npy`
            file, or `procedural` (drawn by the program). By default the images held out from the source.
        num_unlabeled: Largest number of unlabeled images that are used; by default all held-out images, or 5,000 of
            another source.
        num_agreement: Number of unlabeled images that are not trained on, to measure the agreement with the suspect;
            by default none if there is a labelled test part, else 10 %, at most 1,000.
        num_held_out: Number of training images held out from the attacker, for the defender; by default 10 %, at most
            5,000.
        num_val: Number of training images used for validation; by default 5 %, at most 1,000.
        num_train: Largest number of the attacker's training images; by default all.
        image_size: Height and width of the images, in pixels; by default the source's.
        resize: Resizing of images of another size before the centre crop: `shortest-256-bicubic` resizes the shortest
            edge to 256 pixels, `stretch-224-bilinear` both edges to 224, `keep` neither; filters are `nearest`,
            `bilinear`, `bicubic` and `lanczos`. By default that of the network's processor, or else the largest square
            in the centre is resized. With `-floor` at the end, the crop's corner is rounded down as in transformers.
        batch_size: Number of images in a step, over all processes together; by default 128. Images above 64 pixels go
            through the network in pieces whose gradients are added.
        crop_padding: Padding of the random crop in training, in pixels; by default an eighth of the image size.
        flip: Whether training images are mirrored at random.
        in_memory: Whether decoded images are kept in memory, on the device; by default up to 2 GiB.
        num_workers: Number of processes that decode images that are not in memory; by default one for each core, at
            most 8.
        root: Folder for torchvision's data sets, and for the preparations of attacks (in `prepared/`).
        seed: Seed of the splits and of the order of the images.

    Raises:
        InputError: If an option is out of range, or contradicts another.
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
        resize: str | None = None,
        batch_size: int | None = None,
        crop_padding: int | None = None,
        flip: bool = True,
        in_memory: bool | None = None,
        num_workers: int | None = None,
        root: str = "data",
        seed: int = 0,
    ) -> None:
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
                within(f"data.{name}", value, least, most)
        labelled = None if source is None else open_source(source, root)
        others = None if unlabeled is None else open_source(unlabeled, root, "data.unlabeled")
        size = _checked_size(labelled, others, image_size)
        if crop_padding is not None:
            within("data.crop_padding", crop_padding, 0, size)
        for notice in () if labelled is None else labelled.notices:
            say(notice)
        workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
        super().__init__(
            Labelled(labelled, size, seed, num_val, num_held_out, num_train, _read_resize(resize)),
            others,
            attack,
            Placement(in_memory, workers),
            Augmentation(size // 8 if crop_padding is None else crop_padding, flip),
            num_unlabeled,
            num_agreement,
            batch_size,
            root,
            seed,
        )
        description: dict[str, Any] = {
            "source": source,
            "attack": None if attack is None else type(attack).__name__,
            "attack_options": {} if attack is None else attack.options(),
            "num_held_out": num_held_out,
            "num_val": num_val,
            "num_train": num_train,
            "image_size": size,
            "resize": resize,
            "crop_padding": crop_padding,
            "flip": flip,
            "seed": seed,
        }
        # Plain values only, so that a checkpoint can be read without making objects.
        self.save_hyperparameters(description, logger=False)

    # Predictions

    @cached_property
    def predicted(self) -> tuple[Images, list[str]]:
        """The images to predict, and a name for each: see `named`.

        Raises:
            InputError: If there are no images.
        """
        if self.unlabeled is not None:
            return named(self.drawn(self.unlabeled), self.placement)
        if self.labelled:
            return named(self.sets.test(), self.placement)
        raise InputError("data.unlabeled", None, "needed, as there are no test images to predict")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The unlabeled images if `unlabeled` is set, else the test images; in order, without labels."""
        return self.loader(Batches(self.placement.place(self.predicted[0])))

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The trigger, so that ASR can be measured from the checkpoint alone."""
        return {"trigger": {} if self.attack is None else self.attack.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the trigger of an interrupted run, which training may have changed."""
        if self.attack is not None:
            name = type(self.attack).__name__
            try:
                self.attack.restore(state_dict["trigger"])
            except (RuntimeError, KeyError) as error:
                raise InputError("ckpt_path", None, f"its trigger does not fit {name} ({first_line(error)})") from error


def _read_resize(text: str | None) -> Resize | None:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise InputError("data.resize", text, str(error)) from error


def _checked_size(labelled: Source | None, others: Source | None, image_size: int | None) -> int:
    """Check that there are images, and return their size, in pixels."""
    first = labelled or others
    if first is None:
        raise InputError("data.source", "null", f"needs {Given('data.unlabeled')}, or there are no images at all")
    if labelled is not None and labelled.num_classes < 2:
        raise InputError("data.source", labelled.name, "has no labelled images of two classes or more")
    size = image_size or (None if labelled is None else labelled.image_size)
    if size is None:
        raise InputError("data.image_size", None, f"needed, as the images of {first.name} may be of any size")
    return size
