"""Files that say which class each image has: `labels.csv`, and those of Tiny-ImageNet, GTSRB and ImageNet."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bdclean import InputError, first_ten
from bdclean.data.walk import listed
from bdclean.decoding import SUFFIXES

MOST_BYTES = 2**28
"""A larger file of labels is not read."""
TRIED = 200
"""About how many rows of a file are looked up, to find out whether it is about the images at hand."""
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
"""Names of each part, in folders and in the names of files; the first that has labels is taken."""
_FILES = ("path", "filepath", "imagepath", "imgpath", "filename", "file")
IMAGE_COLUMNS = (*_FILES, "image", "imagename", "imageid", "img", "imgname", "id", "name")
"""Columns that name the image, the surest first, in small letters without anything between them."""
LABEL_COLUMNS = ["label", "class", "classid", "classname", "category", "categoryid", "target", "predictionstring"]
"""Columns that name its class, in the same way."""
ENDINGS = ["", ".jpg", ".JPEG", ".png", ".jpeg", ".JPG", ".PNG", ".ppm", ".bmp", ".webp", ".tif", ".tiff"]
"""What is added to the name of an image in a table to find its file."""
ADVICE = (
    "put the images of each class into a folder of its own, or add a file labels.csv with the columns filename,label"
)


@dataclass
class Labels:
    """What a file says.

    Attributes:
        folder: Where the images lie.
        places: Folders that their names may begin at.
        rows: Image and class, as the file has them.
        alone: Whether the file is about these images alone.
    """

    folder: Path
    places: Sequence[Path]
    rows: list[tuple[str, str]]
    alone: bool

    def find(self, name: str) -> Path | None:
        """The image of a row, if it is in the folder; a row cannot lead out of it."""
        inner = PurePosixPath(name.replace("\\", "/"))
        if inner.is_absolute() or ".." in inner.parts or not inner.parts:
            return None
        endings = ENDINGS[:1] if inner.suffix.lower() in SUFFIXES else ENDINGS
        paths = (place / f"{inner}{ending}" for ending in endings for place in self.places)
        return next((path for path in paths if path.is_relative_to(self.folder) and os.path.isfile(path)), None)


def find_labels(folder: Path, split: str, places: Sequence[Path], named: bool, option: str) -> Labels | None:
    """Look for a file that says which classes some images have.

    Args:
        folder: Where the images lie.
        split: `train` or `test`, what the images are.
        places: Folders that the file may lie in, and that the names of the images may begin at.
        named: Whether the file's name has to say that it is about this part.
        option: The option that named the images, for messages.

    Returns:
        What the file says; None if there is none.

    Raises:
        InputError: If the only file there is cannot serve.
    """
    problem: InputError | None = None
    for file in (file for place in places for file in listed(place)):
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", file.stem)}
        about = {name for name, known in SPLITS.items() if words & {*known}}
        if file.suffix.lower() not in (".csv", ".tsv", ".txt") or "submission" in words:
            continue
        if about - {split} or (named and not about):
            continue
        try:
            labels = Labels(folder, places, [], bool(about) or file.is_relative_to(folder))
            if _fill(labels, file, words, option):
                return labels
        except InputError as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return None


def _fill(labels: Labels, file: Path, words: Set[str], option: str) -> bool:
    """Read a file whose name has these words, if it is about the images."""
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
    tried = (row[image] for row in rows[:: 1 + len(rows) // TRIED] if image < len(row))
    if len(header) < 2 or not any(labels.find(name) for name in tried):
        return False
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
    return True


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
