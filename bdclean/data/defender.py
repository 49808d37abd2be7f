"""The defender's images: which there are, and what each is for."""

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
"""Part of the images that are for measuring agreement, if their number is not given."""
AGREEMENT_LIMIT = 1_000
"""Images for measuring agreement at most, if their number is not given."""
CHOICE_LIMIT = 1_000
"""Images at most that a method does not train on."""


class Defender:
    """The defender's images, in a random order: some to measure agreement on, some to choose by, the rest to train on.

    Args:
        images: What there is to draw from.
        loose: Whether these are files of which some may be no images; they are named and left out.
        wanted: How many images are used, if there are so many; None is all, up to `most`.
        most: None is any number.
        agreement: How many of these are for measuring the agreement with the suspect; None is 10 %, at most 1,000.
        seed: Fixes the order.
        placement: Where they are worked on.

    Raises:
        InputError: If none are left to cleanse with.
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
        """Files that are no images."""
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
        """Those that no method sees."""
        self.own = images.subset(numbers[held_out:])
        """Those that a method has."""

    def __len__(self) -> int:
        return len(self.agreement) + len(self.own)

    def defence(self, labels: bool, choosing: float, augment: Augmentation) -> Defence:
        """A method's images: those to train on, and a share of them, at most 1,000, to choose by.

        Args:
            labels: As in Part.
            choosing: The share; 0 is none.
            augment: Crops and flips of the images to train on.

        Raises:
            InputError: If there are too few for that.
        """
        count = max(1, share(None, len(self.own), choosing, CHOICE_LIMIT)) if choosing else 0
        if count >= len(self.own):
            raise InputError("data.num_unlabeled", len(self), "too few to keep some of them for selection")
        numbers = torch.arange(len(self.own))
        trained, chosen = self.own.subset(numbers[count:]), self.own.subset(numbers[:count])
        return Defence((Part(trained, labels, self.placement), Part(chosen, labels, self.placement)), augment)


class Part:
    """Some of the defender's images, brought to where they are worked on when they are first asked for.

    Args:
        images: The images.
        labels: Whether batches carry target and true labels, which are equal, or images alone.
        placement: Where they are worked on.
    """

    def __init__(self, images: Images, labels: bool, placement: Placement) -> None:
        self.images = images
        self.labels = labels
        self.placement = placement

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def batches(self) -> Batches:
        """The images by the batch."""
        images = self.placement.place(self.images)
        labels = images.labels if self.labels else None
        return Batches(images, labels, labels)


class Defence:
    """What a method trains on.

    Args:
        parts: The images to train on, and those to choose by, of which there may be none.
        augment: Crops and flips of the former.
    """

    def __init__(self, parts: tuple[Part, Part], augment: Augmentation) -> None:
        self.parts = parts
        self.augment = augment
        self.loaders: dict[bool, DataLoader[Batch]] = {}
        """Of all images in order, by whether they are to choose by, once they were needed: they may have processes."""

    @property
    def training(self) -> Batches:
        """The images to train on, cropped and flipped."""
        part = self.parts[0].batches
        return Batches(part.images, part.targets, part.labels, self.augment)


def readable(images: FileImages, wanted: int, placement: Placement) -> tuple[Images, list[Path]]:
    """The first files that can be decoded, so many as wanted, and those that cannot, which are named."""
    found, unreadable = images.readable(wanted, placement.num_workers, placement.fits(wanted * images.size**2 * 3))
    if unreadable:
        looked_at = len(found) + len(unreadable)
        say(f"{images.option}: {len(unreadable)} of {looked_at} files are unreadable: {first_ten(unreadable)}")
    return found, unreadable


def named(images: Images, placement: Placement) -> tuple[Images, list[str]]:
    """Images that can be decoded, and a name for each: its file, or its number."""
    if not isinstance(images, FileImages):
        return images, [str(number) for number in range(len(images))]
    found, unreadable = readable(images, len(images), placement)
    left_out = set(unreadable)
    return found, [str(path) for path in images.paths if path not in left_out]
