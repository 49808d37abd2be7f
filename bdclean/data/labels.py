"""Files with the class of each image: `labels.csv`, and the annotation files of Tiny-ImageNet, GTSRB and ImageNet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bdclean import first_ten
from bdclean.data.tables import Table, names_image, read_table
from bdclean.data.walk import listed
from bdclean.errors import Given, InputError

TRIED = 200
"""Approximate number of rows to look up, to decide whether a file is about the images."""
LONGEST_LABEL = 1000
"""Maximum length of the name of a class, in characters."""
LONGEST_SHOWN = 60
"""Maximum length of a cell in a message, in characters."""
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
"""Names of each part in folder and file names; the first part with labels is used."""
ENDINGS = ["", ".jpg", ".JPEG", ".png", ".jpeg", ".JPG", ".PNG", ".ppm", ".bmp", ".webp", ".tif", ".tiff"]
"""Suffixes to try for the name of an image in a table."""
TABLE_WORDS = {"label", "labels", "annotation", "annotations"}
"""Words in the name of a file that is meant to hold classes."""
FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE)
"""A number, with or without a fraction and an exponent."""
DRIVE = re.compile(r"[A-Za-z]:/")
"""Beginning of an absolute path on Windows."""
ADVICE = "put the images of each class into a separate folder, or add a file labels.csv with the columns filename,label"


@dataclass(frozen=True)
class Labels:
    """The classes of a folder's images according to a table.

    Attributes:
        images: The class of each image that exists.
        missing: Images that do not exist, if the table is only about this folder.
        classes: All classes in the table.
    """

    images: dict[Path, str]
    missing: list[Path]
    classes: frozenset[str]


@dataclass(frozen=True)
class Places:
    """Folders in which the images of a table may be.

    Attributes:
        root: The folder that the user named.
        folder: The folder to read: the root, or a folder in it.
        inside: Folders in `folder` with images of many classes.
    """

    root: Path
    folder: Path
    inside: Sequence[Path]

    @cached_property
    def starts(self) -> list[Path]:
        """Folders that may contain a table, and that names of images may be relative to."""
        return [*dict.fromkeys((self.folder, *self.inside, self.root))]

    def find(self, name: str) -> Path | None:
        """The path of the image of a row; None if it is not in the folder."""
        for path in filter(None, (self._inner(name, start) for start in self._starts)):
            for ending in ENDINGS[:1] if names_image(path) else ENDINGS:
                # Make a Path only of files that exist: tables can have a million rows.
                if path.startswith(self._beginning) and os.path.isfile(f"{self.root}{os.sep}{path}{ending}"):
                    return self.root / f"{path}{ending}"
        return None

    def outside(self, name: str, table: Path) -> bool:
        """Whether the name of an image in a table leads out of the root."""
        return bool(name) and self._inner(name, table.parent.relative_to(self.root).as_posix()) is None

    def _inner(self, name: str, start: str) -> str | None:
        """The path of a name that is relative to `start`, as a path from the root; None if it leads out of the root."""
        name = name.strip().replace("\\", "/")
        if DRIVE.match(name) and os.name != "nt":
            return None
        for top in self._tops:
            path = os.path.normpath(os.path.join(top, start, name))
            if path.startswith(top):
                return path[len(top) :].replace(os.sep, "/")
        return None

    @cached_property
    def _starts(self) -> list[str]:
        return [start.relative_to(self.root).as_posix() for start in self.starts]

    @cached_property
    def _tops(self) -> list[str]:
        return [os.path.join(top, "") for top in (os.path.abspath(self.root), os.path.realpath(self.root))]

    @cached_property
    def _beginning(self) -> str:
        return "" if self.folder == self.root else f"{self.folder.relative_to(self.root).as_posix()}/"


def find_labels(places: Places, split: str, named: bool, loose: bool, option: Given) -> Labels | None:
    """Look for a file with the classes of images.

    Args:
        places: Folders of the images and of the file.
        split: `train` or `test`.
        named: Whether the file's name has to name this part.
        loose: Whether some of the images are in no class folder, so that only a file can give their classes.
        option: The parameter that named the images, for messages.

    Returns:
        The classes in the file; None without a file.

    Raises:
        InputError: If no file can be used, and there is a faulty one.
    """
    problem: InputError | None = None
    for file, words, about in _tables(places):
        if about - {split} or (named and not about):
            continue
        alone = bool(about) or file.is_relative_to(places.folder)
        try:
            _check_kind(words, file, option)
            table = read_table(file)
            if _is_about(table, places):
                return _labels(table, file, places, alone, option)
            if loose and (about or words & TABLE_WORDS or table.known or names_image("".join(table.titles[:1]))):
                _check_images(table, file, places, alone, option)
        except InputError as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return None


def _tables(places: Places) -> Iterator[tuple[Path, set[str], set[str]]]:
    """Files that may be tables, the words in their names, and the parts that these words name."""
    for file in (file for place in places.starts for file in listed(place)):
        words = words_of(file.stem)
        if file.suffix.lower() in (".csv", ".tsv", ".txt") and "submission" not in words and os.path.isfile(file):
            yield file, words, {name for name, known in SPLITS.items() if words & {*known}}


def words_of(name: str) -> set[str]:
    """The words in the name of a file or folder, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def _check_kind(words: Set[str], file: Path, option: Given) -> None:
    """Refuse files whose names show that they do not hold usable classes."""
    if {"attr", "celeba"} <= words:
        raise InputError(
            *option,
            f"{file} has 40 attributes for each image, and no class: add a file labels.csv with the columns "
            "filename,label, where the label is the attribute that the network predicts",
        )
    if {"validation", "ground", "truth"} <= words:
        raise InputError(
            *option,
            f"{file} numbers ImageNet's classes in an order that networks do not use: take LOC_val_solution.csv or "
            f"val.txt instead, or {ADVICE}",
        )


def _is_about(table: Table, places: Places) -> bool:
    """Whether some of a table's images exist."""
    tried = (row[table.image] for _, row in table.rows[:: 1 + len(table.rows) // TRIED] if table.image < len(row))
    return len(table.titles) > 1 and any(places.find(name) for name in tried)


def _check_images(table: Table, file: Path, places: Places, alone: bool, option: Given) -> None:
    """Raise an error that explains why no image of a table exists; if not `alone`, they may be in another folder."""
    if table.broken:
        raise InputError(*option, f"{file}, {table.broken}")
    named = [(line, row[table.image]) for line, row in table.rows if table.image < len(row)]
    if not named:
        raise InputError(*option, f"{file} is empty: it needs a row for each image, with its file name and its class")
    for line, name in named:
        if names_image(name) and places.outside(name, file):
            raise InputError(*option, f"{file}, line {line}: {_short(name)} leads out of {places.root}")
    if len(table.titles) == 1 and words_of(file.stem) & TABLE_WORDS:
        raise InputError(*option, f"{file} has one column, and needs two: the file name of each image, and its class")
    if alone and len(table.titles) > 1:
        raise InputError(*option, f"{file} names no existing image: line {named[0][0]} has {_short(named[0][1])}")


def _labels(table: Table, file: Path, places: Places, alone: bool, option: Given) -> Labels:
    """The classes in a table of the images that exist."""
    if table.label is None:
        raise InputError(
            *option, f"{file} has no column called label, but {first_ten(table.titles)}: which is the class?"
        )
    rows = table.rows
    title = table.titles[table.image]
    if rows[0][1] == table.titles and not names_image(title) and places.find(title) is None:
        rows = rows[1:]
    found: dict[Path, tuple[int, str]] = {}
    missing: list[Path] = []
    classes: dict[str, int] = {}
    for line, row in rows:
        name, label = (row[column].strip() if column < len(row) else "" for column in (table.image, table.label))
        if not label:
            raise InputError(*option, f"{file}, line {line} has no class for an image")
        if table.boxes:
            label = label.split()[0]
        if len(label) > LONGEST_LABEL:
            raise InputError(*option, f"{file}, line {line}: the class {_short(label)} has {len(label)} characters")
        classes.setdefault(label, line)
        path = places.find(name)
        if path is not None:
            before, other = found.setdefault(path, (line, label))
            if other != label:
                both = f"{_short(label)} here and {_short(other)} in line {before}"
                raise InputError(*option, f"{file}, line {line}: {_short(name)} has two classes, {both}")
        elif places.outside(name, file):
            raise InputError(*option, f"{file}, line {line}: {_short(name)} leads out of {places.root}")
        elif alone:
            missing.append(places.folder / name)
    if table.broken:
        raise InputError(*option, f"{file}, {table.broken}")
    names = _names(classes, file, option)
    return Labels({path: names[label] for path, (_, label) in found.items()}, missing, frozenset(names.values()))


def _names(classes: Mapping[str, int], file: Path, option: Given) -> dict[str, str]:
    """Names of classes, in which integers that were written as floats, such as 3.0, become integers again.

    Args:
        classes: The first line of each class of a table.
        file: The table, for messages.
        option: The parameter that named the images, for messages.
    """
    if not all(map(FLOAT.fullmatch, classes)):
        return {label: label for label in classes}
    for label, line in classes.items():
        if not float(label).is_integer():
            raise InputError(*option, f"{file}, line {line}: the class {_short(label)} is not a whole number or a name")
    return {label: label if label.isdecimal() else str(int(float(label))) for label in classes}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
