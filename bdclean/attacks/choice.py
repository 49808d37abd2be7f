"""Which class an attack wants for an image, and which training images it poisons."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bdclean.attacks.roles import draw_roles
from bdclean.errors import Given, InputError

LabelMode = Literal["all-to-one", "one-to-one", "all-to-all", "clean-label"]
OF_ONE_CLASS = ("one-to-one", "clean-label")
"""Label modes that poison images of a single class, so that `poison_rate` is a share of that class."""
DRAWS = 4093
"""Number of random draws, which training images share in turn."""


class Choice:
    """The label mode of an attack, and the choice of poisoned images.

    Attributes:
        target_class: Class that triggered images should be predicted as (not in all-to-all).
        label_mode: Which triggered images get which class.
        poison_rate: Share of the training images that are poisoned, or with the modes `OF_ONE_CLASS` of one class.
        seed: Seed of the choice.
        source_class: Class whose triggered images should be predicted as the target class (one-to-one).
        cover_ratio: Number of training images with the trigger (or with noise) and their true labels, for each poisoned
            image.
        cover_option: The option that sets the amount of cover, for messages.
    """

    target_class: int
    label_mode: LabelMode
    poison_rate: float
    seed: int
    source_class: int
    cover_ratio: float = 0.0
    cover_option: str = ""

    def target_labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """The class that the attacker wants for a triggered image of each true class.

        Args:
            labels: (N,) true classes.
            num_classes: Number of classes.

        Returns:
            (N,) classes. Images whose class stays the same do not count for the ASR: in one-to-one, all images but
            those of the source class.

        Raises:
            InputError: If source or target is not one of the classes, or both are the same.
        """
        if self.label_mode == "all-to-all":
            return (labels + 1) % num_classes
        self._check_class("target_class", self.target_class, num_classes)
        targets = torch.full_like(labels, self.target_class)
        if self.label_mode != "one-to-one":
            return targets
        self._check_class("source_class", self.source_class, num_classes)
        if self.source_class == self.target_class:
            raise InputError("data.attack.source_class", self.source_class, "must differ from the target class")
        return torch.where(labels == self.source_class, targets, labels)

    def training_labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """The class that each training image is trained towards if it is poisoned; by default `target_labels`.

        Args:
            labels: (N,) true classes of all training images, in the order of their numbers.
            num_classes: Number of classes.
        """
        return self.target_labels(labels, num_classes)

    def coverable(self, labels: Tensor) -> Tensor:
        """Which training images may carry the trigger (or noise) with their true labels; by default all of them.

        Args:
            labels: (N,) true classes.

        Returns:
            (N,) bool.
        """
        return torch.ones_like(labels, dtype=torch.bool)

    def choose(self, labels: Tensor, num_classes: int) -> Tensor:
        """Draw the role of each training image, (N,): CLEAN, POISONED or COVER, by `draw_roles`.

        Args:
            labels: (N,) true classes of the training images.
            num_classes: Number of classes.

        Raises:
            InputError: If a rate above 0 poisons no image, or needs more images than exist.
        """
        changes = self.training_labels(labels, num_classes) != labels
        eligible = ~changes if self.label_mode == "clean-label" else changes
        of_one_class = self.label_mode in OF_ONE_CLASS
        if of_one_class and self.poison_rate > 0 and not eligible.any():
            name = "target_class" if self.label_mode == "clean-label" else "source_class"
            raise InputError(
                f"data.attack.{name}",
                getattr(self, name),
                f"none of {len(labels)} training images has this class, so a {self.label_mode} attack poisons none",
            )
        total = int(eligible.sum()) if of_one_class else len(labels)
        cover = Given(f"data.attack.{self.cover_option}", getattr(self, self.cover_option, None))
        wanted = round(self.poison_rate * total)
        if self.poison_rate > 0 and wanted == 0:
            raise InputError("data.attack.poison_rate", self.poison_rate, f"poisons none of {len(labels)} images")
        if wanted > eligible.sum():
            raise InputError(
                "data.attack.poison_rate",
                self.poison_rate,
                f"needs {wanted} images of classes other than the target, but there are {int(eligible.sum())}",
            )
        return draw_roles(eligible, self.coverable(labels), wanted, self.cover_ratio, self.seed, cover)

    def per_poisoned(self, rate: float) -> float:
        """Convert a share of all training images to a `cover_ratio`."""
        return rate / self.poison_rate if self.poison_rate else 0.0

    def draws(self, indices: Tensor, count: int) -> Tensor:
        """Random numbers that are fixed for each training image: (N, count) in [0, 1), on the CPU."""
        table = torch.rand(DRAWS, count, generator=torch.Generator().manual_seed(self.seed))
        return table[indices.cpu() % DRAWS]

    def _check_class(self, name: str, number: int, num_classes: int) -> None:
        if not 0 <= number < num_classes:
            raise InputError(f"data.attack.{name}", number, f"the data have classes 0 to {num_classes - 1}")
