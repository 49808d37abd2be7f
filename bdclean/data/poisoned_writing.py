"""Write poisoned training sets: as arrays in an `.npz` file, or as a folder of PNG files."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bdclean import __version__, escaped
from bdclean.attacks.roles import COVER, POISONED
from bdclean.checkpoint import whole_folder, write_whole
from bdclean.data.attacker import Attacker
from bdclean.data.batches import Batches
from bdclean.data.poisoned_sets import DESCRIPTION, SCHEMA, TABLE, TRIGGERED, Facts, target_of
from bdclean.progress import bar

PIECE = 1024
"""Number of images to write at once."""
ROLES = ("clean", "poisoned", "cover")
"""Names of the roles of images, by their numbers."""
PARTS = ("train", "test", TRIGGERED)
"""Folders of a written folder."""


@dataclass(frozen=True)
class Poisoning:
    """All training images of a source in their order, those of the attacker poisoned, and test images.

    Attributes:
        attacker: The attacker's images; its attack is prepared and does not poison in each step.
        settings: The options that the set is made with, as plain values.
    """

    attacker: Attacker
    settings: Mapping[str, Any]

    @cached_property
    def true_labels(self) -> Tensor:
        """(N,) true classes."""
        return self.attacker.labelled.training.labels.cpu()

    @cached_property
    def _rows(self) -> Tensor:
        """(N,) the index of each image among the attacker's; -1 for others."""
        numbers = self.attacker.labelled.numbers[2]
        return torch.full_like(self.true_labels, -1).index_put((numbers,), torch.arange(len(numbers)))

    @cached_property
    def roles(self) -> Tensor:
        """(N,) the role of each image: clean, poisoned or cover."""
        return torch.where(self._rows >= 0, self.attacker.roles[self._rows], 0)

    @cached_property
    def labels(self) -> Tensor:
        """(N,) classes that a network is trained towards."""
        targets = self.attacker.training.targets
        assert targets is not None
        return torch.where(self._rows >= 0, targets.cpu()[self._rows], self.true_labels)

    @cached_property
    def facts(self) -> Facts:
        """Which images are poisoned."""
        indices = (self.roles == POISONED).nonzero().squeeze(1)
        return Facts(len(self.labels), indices, target_of(self.labels, indices), self.settings)

    @cached_property
    def cover(self) -> Tensor:
        """Indices of images with the trigger (or with noise) and their true labels."""
        return (self.roles == COVER).nonzero().squeeze(1)

    @cached_property
    def tests(self) -> dict[str, Batches]:
        """Clean and triggered test images, by the name of their folder; empty without a test part."""
        parts = self.attacker.test if self.attacker.labelled.has("test") else []
        return dict(zip(PARTS[1:], parts, strict=False))

    def training(self) -> Iterator[Tensor]:
        """Yield the training images in pieces, (n, H, W, 3) uint8."""
        clean, training = self.attacker.labelled.training, self.attacker.training
        for numbers in _pieces(len(clean), "Writing training images"):
            pixels = clean.batch(numbers).clone()
            places = (self.roles[numbers] > 0).nonzero().squeeze(1)
            if len(places):
                pixels[places] = _pixels(training, self._rows[numbers[places]])
            yield pixels

    def test(self, name: str) -> Iterator[Tensor]:
        """Yield the images of a part of `tests` in pieces."""
        part = self.tests[name]
        for numbers in _pieces(len(part), f"Writing {name} images"):
            yield _pixels(part, numbers)

    def images_of(self, name: str) -> Iterator[Tensor]:
        """Yield the images of a part in pieces."""
        return self.training() if name == PARTS[0] else self.test(name)

    @property
    def count(self) -> int:
        """Number of images of all parts."""
        return len(self.labels) + sum(map(len, self.tests.values()))


def write_arrays(path: Path, poisoning: Poisoning) -> None:
    """Write an `.npz` file atomically, without holding all images in memory.

    Its arrays are images (N, H, W, 3) uint8, labels, true_labels, indices, cover and target (-1 if there are several);
    test_images and test_labels; triggered_images, triggered_labels (true) and triggered_targets; and settings, in JSON.
    """
    size = poisoning.attacker.labelled.image_size
    numbers: dict[str, Any] = {
        "labels": poisoning.labels.numpy(),
        "true_labels": poisoning.true_labels.numpy(),
        "indices": poisoning.facts.indices.numpy(),
        "cover": poisoning.cover.numpy(),
        "target": np.array(-1 if poisoning.facts.target is None else poisoning.facts.target),
        "settings": np.array(escaped(json.dumps(dict(poisoning.settings), default=str))),
    }
    for name, part in poisoning.tests.items():
        assert part.labels is not None
        assert part.targets is not None
        numbers[f"{name}_labels"] = part.labels.cpu().numpy()
        if name == PARTS[2]:
            numbers[f"{name}_targets"] = part.targets.cpu().numpy()

    def save(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, count in _lengths(poisoning).items():
                key = "images" if name == PARTS[0] else f"{name}_images"
                # The default date of ZipInfo, so that the same command writes the same file.
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
                    np.lib.format.write_array_header_1_0(member, header)
                    for piece in poisoning.images_of(name):
                        member.write(piece.cpu().contiguous().numpy().tobytes())
            for key, array in numbers.items():
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_whole(path, save)


def write_images(path: Path, poisoning: Poisoning) -> None:
    """Write a folder atomically: train/, test/ and triggered/, each with PNG files and labels.csv, and poison.json."""
    with whole_folder(path) as folder:
        for name, count in _lengths(poisoning).items():
            (folder / name).mkdir()
            digits = len(str(count - 1))
            files = (f"{number:0{digits}}.png" for number in range(count))
            with open(folder / name / TABLE, "w", encoding="utf-8", newline="") as table:
                writer = csv.writer(table, lineterminator="\n")
                writer.writerow(_header(name))
                writer.writerows(zip(files, *_columns(poisoning, name), strict=True))
            number = 0
            for piece in poisoning.images_of(name):
                for pixels in piece.cpu().numpy():
                    Image.fromarray(pixels).save(folder / name / f"{number:0{digits}}.png")
                    number += 1
        facts = poisoning.facts
        description = {
            "schema": SCHEMA,
            "bdclean": __version__,
            "images": facts.images,
            "target": facts.target,
            "indices": facts.indices.tolist(),
            "cover": poisoning.cover.tolist(),
            "settings": dict(facts.settings),
        }
        text = escaped(json.dumps(description, default=str) + "\n")
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def _lengths(poisoning: Poisoning) -> dict[str, int]:
    """Number of images of each part."""
    return {PARTS[0]: len(poisoning.labels)} | {name: len(part) for name, part in poisoning.tests.items()}


def _header(name: str) -> list[str]:
    more = {PARTS[0]: ["true_label", "role"], PARTS[2]: ["target"]}
    return ["filename", "label", *more.get(name, [])]


def _columns(poisoning: Poisoning, name: str) -> list[list[Any]]:
    """The cells of a part's table, without the names of the files."""
    if name == PARTS[0]:
        roles = [ROLES[role] for role in poisoning.roles.tolist()]
        return [poisoning.labels.tolist(), poisoning.true_labels.tolist(), roles]
    part = poisoning.tests[name]
    assert part.labels is not None
    assert part.targets is not None
    return [part.labels.tolist(), *([part.targets.tolist()] if name == PARTS[2] else [])]


def _pieces(count: int, name: str) -> Iterator[Tensor]:
    return bar(torch.split(torch.arange(count), PIECE), name)


def _pixels(part: Batches, numbers: Tensor) -> Tensor:
    """The images of a set as they are used, but not augmented, (n, H, W, 3) uint8 on the CPU."""
    pixels = part.images.batch(numbers)
    return (pixels if part.stamp is None else part.stamp(pixels, numbers)).cpu()
