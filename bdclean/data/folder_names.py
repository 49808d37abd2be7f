"""Names of folders and classes: which say training and test, and what classes are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from bdclean.data.labels import SPLITS, words_of

MOST_PARTS = 4
"""More folders are classes, whatever their names: those for training, validation and tests, and one to predict."""
MOST_CHARACTERS = 2**24
"""What is read of a file with the names of classes."""


def parts_inside(classes: Sequence[Path]) -> list[Path]:
    """A folder of training and one of test images in folders of classes, if each class has one, and some class both."""
    both: list[Path] = []
    for place in classes:
        found = [
            next((place / form for form in forms(words) if (place / form).is_dir()), None) for words in SPLITS.values()
        ]
        if not any(found):
            return []
        if all(found):
            both = both or [folder for folder in found if folder is not None]
    return both if len(classes) > 1 else []


def forms(words: Iterable[str]) -> Iterator[str]:
    """How folders for training or test images are written."""
    return (form for word in words for form in (word, word.capitalize()))


def parts_by_other_names(classes: Collection[str]) -> list[str]:
    """The two of a few names that say train and test, as `seg_train` and `seg_test`, if there are such names."""
    if len(classes) > MOST_PARTS:
        return []
    said = {split: [name for name in sorted(classes) if words_of(name) & {*known}] for split, known in SPLITS.items()}
    return [names[0] for names in said.values()] if all(said.values()) else []


def class_words(root: Path) -> dict[str, str]:
    """What the classes of ImageNet and Tiny-ImageNet are called."""
    for name, separator in (("words.txt", "\t"), ("LOC_synset_mapping.txt", " ")):
        if (root / name).is_file():
            with open(root / name, encoding="utf-8", errors="replace") as file:
                lines = file.read(MOST_CHARACTERS).splitlines()
            return {line.partition(separator)[0]: " ".join(line.split()) for line in lines}
    return {}
