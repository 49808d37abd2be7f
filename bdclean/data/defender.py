"""The defender's images, and their division into training, selection and agreement images."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from bdclean import first_ten
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch
from bdclean.data.batches import Batches
from bdclean.data.files import FileImages
from bdclean.data.images import Images
from bdclean.data.notices import say
from bdclean.data.placement import Placement
from bdclean.data.splits import share
from bdclean.errors import Given, InputError

AGREEMENT_SHARE = 0.1
"""Default share of the images that are held out to measure agreement."""
AGREEMENT_LIMIT = 1_000
"""Maximum of the default number of images that are held out to measure agreement."""
CHOICE_LIMIT = 1_000
"""Maximum number of selection images, on which a method does not train."""


class Defender:
    """The defender's images in random order: some to measure agreement, some for selection, the rest for training.

    Args:
        images: The available images.
        loose: Whether some of the images may be unreadable files, which are reported and left out.
        wanted: Largest number of images to use; None for all, up to `most`.
        most: Limit for `wanted=None`; None for no limit.
        agreement: Number of images to measure the agreement with the suspect on; None for 10 %, at most 1,000.
        seed: Seed of the order.
        placement: Where the images are kept.

    Raises:
        InputError: If no images are left for cleansing.
    """

    def __init__(
        self,
        images: Images,
        loose: bool,
        wanted: int | None,
        most: int | None,
        agreement: int | None,
        seed: int,
        placement: Placement,
    ) -> None:
        images = images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)))
        self.unreadable: list[Path] = []
        """Files that cannot be read as images."""
        count = min(len(images), most or len(images)) if wanted is None else wanted
        if loose and isinstance(images, FileImages):
            images, self.unreadable = readable(images, min(count, len(images)), placement)
            count = len(images) if wanted is None else wanted
        if count > len(images):
            kind = " readable" if self.unreadable else ""
            say(
                f"{Given('data.num_unlabeled', count)}: there are {len(images)}{kind} unlabeled images; all of them "
                "are used"
            )
            count = len(images)
        held_out = max(1, share(None, count, AGREEMENT_SHARE, AGREEMENT_LIMIT)) if agreement is None else agreement
        if held_out >= count:
            raise InputError("data.num_agreement", held_out, f"there are {count} unlabeled images in all")
        numbers = torch.arange(count)
        self.placement = placement
        self.agreement = Part(images.subset(numbers[:held_out]), False, placement)
        """Images that no method uses."""
        self.own = images.subset(numbers[held_out:])
        """Images for the method."""

    def __len__(self) -> int:
        return len(self.agreement) + len(self.own)

    def defence(self, labels: bool, choosing: float, augment: Augmentation) -> Defence:
        """Divide a method's images into training images and at most 1,000 selection images.

        Args:
            labels: Whether batches have labels.
            choosing: Share of selection images; 0 for none.
            augment: Crops and flips of the training images.

        Raises:
            InputError: If there are too few images.
        """
        count = max(1, share(None, len(self.own), choosing, CHOICE_LIMIT)) if choosing else 0
        if count >= len(self.own):
            raise InputError("data.num_unlabeled", len(self), "too few to hold some of them out for selection")
        numbers = torch.arange(len(self.own))
        trained, chosen = self.own.subset(numbers[count:]), self.own.subset(numbers[:count])
        return Defence((Part(trained, labels, self.placement), Part(chosen, labels, self.placement)), augment)


class Part:
    """Some of the defender's images, moved to their device on first use.

    Args:
        images: The images.
        labels: Whether batches have target and true labels, which are equal; otherwise they have only images.
        placement: Where the images are kept.
    """

    def __init__(self, images: Images, labels: bool, placement: Placement) -> None:
        self.images = images
        self.labels = labels
        self.placement = placement

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def batches(self) -> Batches:
        """The images as a dataset of batches."""
        images = self.placement.place(self.images)
        labels = images.labels if self.labels else None
        return Batches(images, labels, labels)


class Defence:
    """The images of a method.

    Args:
        parts: Training images, and selection images, which may be empty.
        augment: Crops and flips of the training images.
    """

    def __init__(self, parts: tuple[Part, Part], augment: Augmentation) -> None:
        self.parts = parts
        self.augment = augment
        self.loaders: dict[bool, DataLoader[Batch]] = {}
        """Loaders of all images in order, by whether they are selection images; kept, as they may have processes."""

    @property
    def training(self) -> Batches:
        """The training images, cropped and flipped."""
        part = self.parts[0].batches
        return Batches(part.images, part.targets, part.labels, self.augment)


def readable(images: FileImages, wanted: int, placement: Placement) -> tuple[Images, list[Path]]:
    """The first `wanted` files that can be decoded, and the files before them that cannot, which are reported."""
    found, unreadable = images.readable(wanted, placement.num_workers, placement.fits(wanted * images.size**2 * 3))
    if unreadable:
        looked_at = len(found) + len(unreadable)
        say(f"{images.option}: {len(unreadable)} of {looked_at} files are unreadable: {first_ten(unreadable)}")
    return found, unreadable


def named(images: Images, placement: Placement) -> tuple[Images, list[str]]:
    """The images that can be decoded, and a name for each: its file, or else its index."""
    if not isinstance(images, FileImages):
        return images, [str(number) for number in range(len(images))]
    found, unreadable = readable(images, len(images), placement)
    left_out = set(unreadable)
    return found, [str(path) for path in images.paths if path not in left_out]
