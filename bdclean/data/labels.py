"""Files that say which class each image has: `labels.csv`, and those of Tiny-ImageNet, GTSRB and ImageNet."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bdclean import InputError, first_ten
from bdclean.data.walk import listed
from bdclean.decoding import SUFFIXES

MOST_BYTES = 2**28
"""A larger file of labels is not read."""
TRIED = 20
"""Rows of a file that are looked up, to find out whether it is about the images at hand."""
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
"""Names of each part, in folders and in the names of files; the first that has labels is taken."""
IMAGE_COLUMNS = (
    *(
        "path",
        "filepath",
        "imagepath",
        "imgpath",
        "filename",
        "file",
        "image",
        "imagename",
        "imageid",
        "img",
        "imgname",
    ),
    *("id", "name"),
)
"""Columns that name the image, the surest first, in small letters without anything between them."""
LABEL_COLUMNS = (
    *("label", "class", "classid", "classname", "category", "categoryid", "target"),
    "predictionstring",
)
"""Columns that name its class, in the same way."""
ADVICE = (
    "put the images of each class into a folder of its own, or add a file labels.csv with the columns filename,label"
)


@dataclass
class Labels:
    """What a file says.

    Attributes:
        file: The file.
        rows: Image and class, as the file has them.
        places: Folders that the images may lie in.
    """

    file: Path
    rows: list[tuple[str, str]]
    places: Sequence[Path]
    suffixes: list[str] = field(default_factory=lambda: ["", *sorted(SUFFIXES), *sorted(map(str.upper, SUFFIXES))])
    """What is added to the images' names to find them, what was found last first."""

    def find(self, name: str) -> Path | None:
        """The image of a row, if it is in one of the places; a row cannot lead out of them."""
        inner = PurePosixPath(name.replace("\\", "/"))
        if inner.is_absolute() or ".." in inner.parts or not inner.parts:
            return None
        for suffix in self.suffixes:
            for place in self.places:
                if os.path.isfile(path := place / f"{inner}{suffix}"):
                    self.suffixes.remove(suffix)
                    self.suffixes.insert(0, suffix)
                    return path
            if inner.suffix.lower() in SUFFIXES:
                return None
        return None


def find_labels(where: Iterable[Path], split: str, places: Sequence[Path], named: bool, option: str) -> Labels | None:
    """Look for a file that says which classes some images have.

    Args:
        where: Folders that the file may lie in.
        split: `train` or `test`, what the images are.
        places: Folders that the images may lie in.
        named: Whether the file's name has to say that it is about this part.
        option: The option that named the images, for messages.

    Returns:
        What the file says; None if there is none.

    Raises:
        InputError: If the only file there is cannot serve.
    """
    problem: InputError | None = None
    for file in (file for folder in where for file in listed(folder)):
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", file.stem)}
        about = {name for name, known in SPLITS.items() if words & {*known}}
        if file.suffix.lower() not in (".csv", ".tsv", ".txt") or "submission" in words:
            continue
        if about - {split} or (named and not about):
            continue
        try:
            if (labels := _labels(file, words, places, option)) is not None:
                return labels
        except InputError as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return None


def _labels(file: Path, words: Set[str], places: Sequence[Path], option: str) -> Labels | None:
    """What a file says whose name has these words, if it is about images in these places."""
    if {"attr", "celeba"} <= words:
        raise InputError(
            f"{option}: {file} has 40 attributes for each image, and no class: add a file labels.csv with the columns "
            "filename,label, where the label is the attribute that the network predicts"
        )
    if {"validation", "ground", "truth"} <= words:
        raise InputError(
            f"{option}: {file} numbers ImageNet's classes in an order that networks do not have: take "
            f"LOC_val_solution.csv or val.txt instead, or {ADVICE}"
        )
    rows = _rows(file)
    header = [re.sub(r"[^a-z]", "", cell.lower()) for cell in rows[0]] if rows else []
    image, label = _column(header, IMAGE_COLUMNS), _column(header, LABEL_COLUMNS)
    if image is None:
        image, label = 0, 1
    elif label is None and len(header) == 2:
        label = 1 - image
    labels = Labels(file, [], places)
    if not any(labels.find(row[image]) for row in rows[: TRIED + 1] if image < len(row)):
        return None
    if len(header) == 1:
        return None
    if label is None:
        raise InputError(f"{option}: {file} has no column called label, but {first_ten(rows[0])}: which is the class?")
    if not labels.find(rows[0][image]):
        del rows[0]
    # ImageNet's cells go on with the box of each object.
    boxes = header[label : label + 1] == ["predictionstring"]
    for number, row in enumerate(rows, start=2):
        if max(image, label) >= len(row) or not row[label].strip():
            raise InputError(f"{option}: {file} has no class for an image, about line {number}")
        labels.rows.append((row[image], row[label].split()[0] if boxes else row[label].strip()))
    return labels


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _rows(file: Path) -> list[list[str]]:
    """The cells of a table without its empty lines; nothing if the file is none."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return []
        # Names of files need not be UTF-8.
        lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        first = next((line for line in lines if line.strip()), "")
        delimiter = next((mark for mark in "\t;," if mark in first), None)
        if delimiter is None:
            return [line.rsplit(None, 1) for line in lines if line.strip()]
        return [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except (OSError, csv.Error):
        return []
