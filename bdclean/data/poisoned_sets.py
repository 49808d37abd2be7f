"""Poisoned training sets in files: what such a set says about its poisoned images."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdclean.checkpoint import Triggered
from bdclean.data.arrays import MOST_CLASSES
from bdclean.data.tables import read_table
from bdclean.errors import Given, InputError

DESCRIPTION = "poison.json"
"""The file of a folder that describes its poisoned images."""
TRIGGERED = "triggered"
"""The folder in it with triggered test images."""
TABLE = "labels.csv"
"""The table with their classes."""
TITLES = ["filename", "label", "target"]
"""The columns of that table: the file, its true class, and the class that the attacker wants."""
LARGEST = 64 * 2**20
"""Maximum size of that file, in bytes."""
SCHEMA = 1
"""Version of the description; it increases whenever a key is removed or changes its meaning."""


@dataclass(frozen=True)
class Facts:
    """Which images of a training set are poisoned.

    Attributes:
        images: Number of images.
        indices: (M,) int64, the poisoned images.
        target: The class of all poisoned images; None if there are several.
        settings: The options that the set was made with, as plain values; empty if it does not say.
    """

    images: int
    indices: Tensor
    target: int | None
    settings: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """The facts in one sentence."""
        towards = "" if self.target is None else f" towards class {self.target}"
        return f"{len(self.indices):,} of {self.images:,} training images are poisoned{towards}, and no attack is added"


def target_of(labels: Tensor, indices: Tensor) -> int | None:
    """The class of all poisoned images; None if there are several or none.

    Args:
        labels: (N,) classes that a network is trained towards.
        indices: (M,) the poisoned images.
    """
    classes = torch.unique(labels[indices]).tolist()
    return int(classes[0]) if len(classes) == 1 else None


def parsed_settings(text: str) -> dict[str, Any]:
    """The options in the description of a set; empty if the text is not such a description."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_facts(folder: Path, option: Given) -> Facts | None:
    """What a folder says about its poisoned images; None if it is not a poisoned set.

    Args:
        folder: The folder.
        option: The parameter that named it, for messages.

    Raises:
        InputError: If its description is wrong.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(*option, f"{path} has more than {LARGEST // 2**20} MiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(*option, f"{path} cannot be read") from error
    found = parsed_settings(text)
    images, indices, target = (found.get(name) for name in ("images", "indices", "target"))
    if not isinstance(images, int) or not _is_number(images, 2**40):
        raise InputError(*option, f"{path} must have the number of images")
    if not isinstance(indices, list) or not all(_is_number(one, images) for one in indices):
        raise InputError(*option, f"{path} must have the indices of poisoned images, from 0 to {images - 1}")
    if target is not None and not _is_number(target, MOST_CLASSES):
        raise InputError(*option, f"{path} must have a class number as target, or null")
    settings = found.get("settings")
    return Facts(images, torch.tensor(indices), target, settings if isinstance(settings, dict) else {})


def read_triggered(folder: Path, num_classes: int, option: Given) -> Triggered | None:
    """The triggered test images of a folder, in the order of their table; None if there are none.

    Args:
        folder: The folder.
        num_classes: Number of classes.
        option: The parameter that named it, for messages.

    Raises:
        InputError: If the table names other files or wrong classes.
    """
    place = folder / TRIGGERED
    table = read_table(place / TABLE)
    if table.titles != TITLES or table.broken:
        return None
    images: list[Path] = []
    classes: list[tuple[int, int]] = []
    for line, cells in table.rows:
        name, *numbers = cells
        known = len(numbers) == 2 and all(cell.isdecimal() and int(cell) < num_classes for cell in numbers)
        if not known or os.path.basename(name) != name or not os.path.isfile(place / name):
            raise InputError(*option, f"{place / TABLE}, line {line} must name an image there and two classes")
        images.append(place / name)
        classes.append((int(numbers[0]), int(numbers[1])))
    labels, targets = torch.tensor(classes, dtype=torch.long).reshape(-1, 2).unbind(1)
    return Triggered(images, targets, labels) if images else None


def refuse_second_attack(facts: Facts | None, attack: str | None, source: Given) -> None:
    """Refuse to poison images that are poisoned already.

    Args:
        facts: What the set says about its poisoned images; None if it says nothing.
        attack: Name of the attack; None if no training images are poisoned.
        source: The parameter that named the set.

    Raises:
        InputError: If both are given.
    """
    if facts is not None and attack is not None:
        null = Given("data.attack", "null")
        raise InputError("data.attack", attack, f"{source.value} is poisoned already; {null} trains on it as it is")


def _is_number(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit
