"""The defender's images: which there are, and what each is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bdclean import InputError, first_ten
from bdclean.data.batches import Batches
from bdclean.data.files import FileImages
from bdclean.data.images import Images
from bdclean.data.notices import say

VALIDATION_SHARE, VALIDATION_LIMIT = 0.05, 1_000
DEFENDER_SHARE, DEFENDER_LIMIT = 0.1, 5_000
AGREEMENT_SHARE, AGREEMENT_LIMIT = 0.1, 1_000
CHOICE_LIMIT = 1_000


class Defender:
    """The defender's images, in a random order: some to measure agreement on, some to choose by, the rest to train on.

    Args:
        images: What there is to draw from.
        loose: Whether these are files of which some may be no images; they are named and left out.
        wanted: How many images are used, if there are so many; None is all, up to `most`.
        most: None is any number.
        agreement: How many of these are for measuring the agreement with the suspect; None is 10 %, at most 1,000.
        seed: Fixes the order.
        num_workers: Processes that look at files.
        fits: Whether so many bytes may be kept in memory.

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
        num_workers: int,
        fits: Callable[[int], bool],
    ) -> None:
        images = images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)))
        self.unreadable: list[Path] = []
        """Files that are no images."""
        count = min(len(images), most or len(images)) if wanted is None else wanted
        if loose and isinstance(images, FileImages):
            images, self.unreadable = readable(images, min(count, len(images)), num_workers, fits)
            count = len(images) if wanted is None else wanted
        if count > len(images):
            kind = " readable" if self.unreadable else ""
            say(f"--data.num_unlabeled {count}: there are {len(images)}{kind} unlabeled images; all of them are used")
            count = len(images)
        held_out = max(1, share(None, count, AGREEMENT_SHARE, AGREEMENT_LIMIT)) if agreement is None else agreement
        if held_out >= count:
            raise InputError(f"--data.num_agreement {held_out}: there are {count} unlabeled images in all")
        numbers = torch.arange(count)
        self.agreement = images.subset(numbers[:held_out])
        """Those that no method sees."""
        self.own = images.subset(numbers[held_out:])
        """Those that a method has."""

    def __len__(self) -> int:
        return len(self.agreement) + len(self.own)

    def split(self, choosing: float) -> tuple[Images, Images]:
        """A method's images: those to train on, and a share of them, at most 1,000, to choose by.

        Raises:
            InputError: If there are too few for that.
        """
        count = max(1, share(None, len(self.own), choosing, CHOICE_LIMIT)) if choosing else 0
        if count >= len(self.own):
            raise InputError(f"--data.num_unlabeled {len(self)}: too few to keep some of them for choosing by")
        numbers = torch.arange(len(self.own))
        return self.own.subset(numbers[count:]), self.own.subset(numbers[:count])


class Part:
    """Some of the images, brought into memory when they are first asked for.

    Args:
        images: The images.
        labels: Whether batches carry target and true labels, which are equal, or are bare images.
    """

    def __init__(self, images: Images, labels: bool) -> None:
        self.images = images
        self.labels = labels
        self.placed: Batches | None = None
        self.loader: DataLoader[Any] | None = None
        """Of all images in order, once it was needed: making one anew may start processes."""

    def batches(self, place: Callable[[Images], Images]) -> Batches:
        """The images by the batch.

        Args:
            place: Brings images to where they are worked on.
        """
        if self.placed is None:
            images = place(self.images)
            self.placed = Batches(images, (images.labels,) * 2 if self.labels else ())
        return self.placed


def readable(
    images: FileImages, wanted: int, num_workers: int, fits: Callable[[int], bool]
) -> tuple[Images, list[Path]]:
    """The first files that can be decoded, so many as wanted, and those that cannot, which are named."""
    found, unreadable = images.readable(wanted, num_workers, fits(wanted * images.size**2 * 3))
    if unreadable:
        looked_at = len(found) + len(unreadable)
        say(f"{images.option}: {len(unreadable)} of {looked_at} files are unreadable: {first_ten(unreadable)}")
    return found, unreadable


def split(
    total: int, seed: int, num_val: int | None, num_held_out: int | None, num_train: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the images of a training part that are for validation, the defender's, and the attacker's.

    Args:
        total: How many there are.
        seed: As in PoisonDataModule.
        num_val: As in PoisonDataModule.
        num_held_out: As in PoisonDataModule.
        num_train: As in PoisonDataModule.

    Raises:
        InputError: If none are left for the attacker.
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    val = share(num_val, total, VALIDATION_SHARE, VALIDATION_LIMIT)
    defender = share(num_held_out, total, DEFENDER_SHARE, DEFENDER_LIMIT)
    if defender + val >= total:
        raise InputError(
            f"--data.num_held_out {defender} --data.num_val {val}: there are {total} training images in all"
        )
    return order[:val], order[val : val + defender], order[val + defender :][:num_train]


def share(number: int | None, total: int, part: float, limit: int) -> int:
    """A number that was given, or a part of the total up to a limit."""
    return min(round(part * total), limit) if number is None else number
