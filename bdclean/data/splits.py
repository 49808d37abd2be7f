"""The labelled images of an experiment, split between validation, defender and attacker."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bdclean.data.images import Images
from bdclean.data.sources import Source
from bdclean.errors import Given, InputError
from bdclean.resizing import Resize

VALIDATION_SHARE = 0.05
"""Default share of the training images for validation."""
VALIDATION_LIMIT = 1_000
"""Maximum of the default number of validation images."""
DEFENDER_SHARE = 0.1
"""Default share of the training images that is held out for the defender."""
DEFENDER_LIMIT = 5_000
"""Maximum of the default number of the defender's images."""


class Labelled:
    """The labelled images: a test part, and a training part that is split into three.

    Args:
        source: Source of the images; None if there are none.
        image_size: Height and width of the images, in pixels.
        seed: Seed of the splits and of the order of the images.
        num_val: Number of training images for validation; None for the default.
        num_held_out: Number of training images held out for the defender; None for the default.
        num_train: Maximum number of the attacker's training images; None for all.
        resize: How pictures are resized; as in `bdclean.decoding.square`.
    """

    def __init__(
        self,
        source: Source | None,
        image_size: int,
        seed: int,
        num_val: int | None,
        num_held_out: int | None,
        num_train: int | None,
        resize: Resize | None,
    ) -> None:
        self.source = source
        self.image_size = image_size
        self.resize = resize
        self.seed = seed
        self.sizes = (num_val, num_held_out, num_train)
        self.num_classes = None if source is None else source.num_classes
        """Number of classes of the images, or of the network if some classes may have no images."""

    def has(self, split: str) -> bool:
        """Whether there is a `train` or `test` part."""
        return self.source is not None and self.source.has(split)

    def test(self) -> Images:
        """The test part."""
        assert self.source is not None
        return self.source.load("test", self.image_size).resized(self.resize)

    @cached_property
    def training(self) -> Images:
        """The training part."""
        assert self.source is not None
        return self.source.load("train", self.image_size).resized(self.resize)

    @cached_property
    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the validation, the defender's and the attacker's images in the training part."""
        return split(len(self.training), self.seed, *self.sizes)

    @property
    def validation(self) -> Images:
        """The images for validation."""
        return self.training.subset(self.numbers[0])

    @property
    def held_out(self) -> Images:
        """The images that are held out from the attacker."""
        return self.training.subset(self.numbers[1])

    @cached_property
    def attackers(self) -> Images:
        """The attacker's images, clean."""
        return self.training.subset(self.numbers[2])

    def trained_on(self, description: Mapping[str, Any]) -> int:
        """Number of images that are held out here, but were the attacker's training images in another split.

        Args:
            description: Options of the other split, from a checkpoint.
        """
        if self.source is None or description.get("source") != self.source.name:
            return 0
        options = (description.get(name) for name in ("num_val", "num_held_out", "num_train"))
        trained = split(len(self.training), description.get("seed", 0), *options)[2]
        return int(torch.isin(self.numbers[1], trained).sum())


def split(
    total: int, seed: int, num_val: int | None, num_held_out: int | None, num_train: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the validation, the defender's and the attacker's images in a training part.

    Args:
        total: Number of images in the part.
        seed: Seed of the splits and of the order of the images.
        num_val: Number of training images for validation; None for the default.
        num_held_out: Number of training images held out for the defender; None for the default.
        num_train: Maximum number of the attacker's training images; None for all.

    Raises:
        InputError: If no images are left for the attacker.
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    val = share(num_val, total, VALIDATION_SHARE, VALIDATION_LIMIT)
    defender = share(num_held_out, total, DEFENDER_SHARE, DEFENDER_LIMIT)
    if defender + val >= total:
        raise InputError(
            "data.num_held_out", defender, f"there are {total} training images in all", Given("data.num_val", val)
        )
    return order[:val], order[val : val + defender], order[val + defender :][:num_train]


def share(number: int | None, total: int, part: float, limit: int) -> int:
    """The given number, or by default a share of the total up to a limit."""
    return min(round(part * total), limit) if number is None else number
