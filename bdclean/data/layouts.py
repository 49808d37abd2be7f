"""Layouts of labelled images in folders: one folder per class, or a file with the classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from bdclean import first_ten
from bdclean.data.arrays import MOST_CLASSES
from bdclean.data.folder_names import class_words, forms, parts_by_other_names, parts_inside
from bdclean.data.labels import ADVICE, SPLITS, Places, find_labels
from bdclean.data.walk import folders, identity, listed, walk
from bdclean.decoding import SUFFIXES
from bdclean.errors import Given, InputError

CONTAINERS = {"image", "images", "img", "imgs", "img_align_celeba", "jpegimages", "pictures"}
"""Names of folders that hold images of many classes, and are not classes."""
PREFIX = "final_"
"""Prefix of the names of GTSRB's parts."""


@dataclass(frozen=True)
class Part:
    """Training or test images.

    Attributes:
        folder: Folder of the images.
        classes: Names of the classes in the folder or the file.
        read: Finds the images, each with the name of its class, and unreadable files.
    """

    folder: Path
    classes: frozenset[str]
    read: Callable[[], tuple[list[tuple[Path, str]], list[Path]]]


@dataclass(frozen=True)
class Layout:
    """The labelled images of a folder.

    Attributes:
        parts: The existing parts, of `train` and `test`.
        numbers: Number of each class by its name in the folder: the name itself if all names are numbers, else its
            index in the sorted names.
        numbered: Whether all names are numbers.
        names: Names of the classes for reports, in the order of their numbers; empty if the names are numbers.
        notices: Notices for the user about images that are left out.
    """

    parts: dict[str, Part]
    numbers: dict[str, int]
    numbered: bool
    names: tuple[str, ...]
    notices: list[str]

    @property
    def num_classes(self) -> int:
        """Number of classes, including classes below the largest number that have no images."""
        return max(self.numbers.values(), default=-1) + 1


def read_layout(root: Path, option: Given) -> Layout:
    """Find the layout of a folder's labelled images.

    Args:
        root: The folder.
        option: The parameter that named the folder, for messages.

    Raises:
        InputError: If there are images with unknown classes, or the test part has classes that the training part does
            not have.
    """
    parts: dict[str, Part] = {}
    notices: list[str] = []
    for split in SPLITS:
        if (part := _part(root, split, notices, option)) is not None:
            parts[split] = part
    if notices and not parts:
        raise InputError(*option, notices[0])
    _check_depth(root, parts, option)
    classes = {split: part.classes for split, part in parts.items()}
    known, tested = classes.get("train", classes.get("test", frozenset())), classes.get("test", frozenset())
    numbered = bool(known) and all(name.isdecimal() and int(name) < MOST_CLASSES for name in known)
    order = sorted(known, key=int) if numbered else sorted(known)
    numbers = {name: int(name) if numbered else place for place, name in enumerate(order)}
    numbers |= _padded(tested - numbers.keys(), numbers.values())
    if strange := sorted(tested - numbers.keys()):
        hint = "; do they count from 1? Then subtract 1" if strange == [str(len(order))] else ""
        raise InputError(
            *option,
            f"{parts['test'].folder} has classes that {parts['train'].folder} does not have: "
            f"{first_ten(strange)}{hint}",
        )
    words = {} if numbered else class_words(root)
    return Layout(parts, numbers, numbered, () if numbered else tuple(words.get(n, n) for n in order), notices)


def _padded(names: Set[str], numbers: Collection[int]) -> dict[str, int]:
    """Numbers of classes whose names have leading zeros."""
    return {name: int(name) for name in names if name.isdecimal() and int(name) in numbers}


def _part(root: Path, split: str, notices: list[str], option: Given) -> Part | None:
    """The training or the test images of a folder; None if it has none whose classes are known."""
    inside = folders(root, option)
    named = {part: [folder for folder in inside if _name(folder) in words] for part, words in SPLITS.items()}
    for folder in sorted(named[split], key=lambda folder: SPLITS[split].index(_name(folder))):
        if (part := _by_file(folder, root, split, False, option) or _by_folder(folder, root, option)) is not None:
            return part
    if named[split]:
        _check_tiny_imagenet(named, option)
        notices.append(f"{named[split][0]} is left out, as its images have no labels: {ADVICE}")
        return None
    if (part := _by_file(root, root, split, True, option)) is not None or split == "train" or named["train"]:
        return part
    # Nothing names train or test, so the whole folder is a test set.
    part = _by_file(root, root, split, False, option) or _by_folder(root, root, option)
    if part is None and (_loose(root) or _containers(root, option)):
        notices.append(f"the images have no labels: {ADVICE}")
    return part


def _check_tiny_imagenet(named: dict[str, list[Path]], option: Given) -> None:
    """Refuse Tiny-ImageNet without the file with the classes of its validation images.

    Tiny-ImageNet has a folder `images` in each class of its training part, and in its validation part.
    """
    classes = [place for folder in named["train"] for place in folders(folder, option)]
    for folder in named["test"]:
        inside = _containers(folder, option)
        if folder.name == "val" and inside and classes and all(_containers(place, option) for place in classes[:10]):
            missing = folder / "val_annotations.txt"
            raise InputError(*option, f"{missing} is missing, which lists the classes of the images in {inside[0]}")


def _name(folder: Path) -> str:
    return folder.name.lower().removeprefix(PREFIX)


def _by_file(folder: Path, root: Path, split: str, named: bool, option: Given) -> Part | None:
    """The images of a folder, if there is a file with their classes; arguments as in `find_labels`."""
    containers = _containers(folder, option)
    if not containers and not _loose(folder):
        return None
    loose = any(_loose(place) for place in (folder, *containers))
    labels = find_labels(Places(root, folder, containers), split, named, loose, option)
    if labels is None:
        return None
    return Part(folder, labels.classes, lambda: ([*labels.images.items()], labels.missing))


def _by_folder(folder: Path, root: Path, option: Given) -> Part | None:
    """The images of a folder, if it has one folder per class."""
    containers = _containers(folder, option)
    above = {identity(folder), identity(root)}
    inside = [place for place in folders(folder, option) if place.name.lower() not in CONTAINERS]
    # A link to the folder itself, or to the root, is not a class.
    classes = [place for place in inside if identity(place) not in above]
    if containers and classes:
        raise InputError(
            *option, f"in {folder}, {containers[0].name} would be a class beside {classes[0].name}: {ADVICE}"
        )
    if len(containers) == 1 and not _loose(containers[0]):
        return _by_folder(containers[0], root, option)
    if not classes:
        return None

    def read() -> tuple[list[tuple[Path, str]], list[Path]]:
        if loose := _loose(folder):
            raise InputError(*option, f"{loose} is in no class folder")
        images, left_out = [], []
        # Do not follow links to other classes.
        others = above | {identity(place) for place in classes}
        for place in classes:
            files, unreadable = walk(place, others)
            images += [(file, place.name) for file in files if file.suffix.lower() in SUFFIXES]
            left_out += unreadable
        return images, left_out

    return Part(folder, frozenset(place.name for place in classes), read)


def _containers(folder: Path, option: Given) -> list[Path]:
    """Folders in a folder that hold images of many classes, without empty ones."""
    return [place for place in folders(folder, option) if place.name.lower() in CONTAINERS and listed(place)]


def _loose(folder: Path) -> Path | None:
    """An image directly in a folder; None if there is none."""
    return next((path for path in listed(folder) if path.suffix.lower() in SUFFIXES), None)


def _check_depth(root: Path, parts: Mapping[str, Part], option: Given) -> None:
    """Refuse folders that would be read as classes, but are parts, or contain a whole data set or all classes."""
    whole = parts.get("test")
    if (
        "train" not in parts
        and whole is not None
        and (whole.folder == root or _name(whole.folder) not in SPLITS["test"])
    ):
        if sets := [folder for folder in folders(root, option) if _has_parts(folder, option)]:
            raise InputError(*option, f"has no train/ or test/, but {first_ten(sets)} has: give that folder")
        if pair := parts_inside([whole.folder / name for name in sorted(whole.classes)]):
            raise InputError(
                *option,
                f"each class of {whole.folder} has training and test images inside, as {pair[0]} and "
                f"{pair[1]}: move the parts to the outside: train/CLASS and test/CLASS",
            )
        if alike := parts_by_other_names(whole.classes):
            raise InputError(
                *option,
                f"{' and '.join(alike)} would be classes, but seem to be the training and the test part: "
                "call them train and test",
            )
    for part in parts.values():
        if len(part.classes) == 1 and (inner := _classes_inside(part.folder, option)) is not None:
            cure = "give that folder" if part.folder == root else f"move them into {part.folder}"
            raise InputError(*option, f"{part.folder} has one class, but {inner} has several: {cure}")


def _has_parts(folder: Path, option: Given) -> bool:
    """Whether a folder has folders for training or test images, with several classes."""
    # Do not list the folder: there may be many classes with many files.
    written = forms(word for words in SPLITS.values() for word in words)
    return any(os.path.isdir(folder / form) for form in written) and _several(folder, option)


def _several(folder: Path, option: Given) -> bool:
    found = (_part(folder, split, [], option) for split in SPLITS)
    return any(part is not None and len(part.classes) > 1 for part in found)


def _classes_inside(folder: Path, option: Given) -> Path | None:
    """The folder with several classes inside a folder, below any chain of folders with a single folder each."""
    inside = folders(folder, option)
    if len(inside) != 1:
        return None
    return inside[0] if _several(inside[0], option) else _classes_inside(inside[0], option)
