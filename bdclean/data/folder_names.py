"""Names of folders for training and test images, and names of classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from bdclean.data.labels import SPLITS, words_of

MOST_PARTS = 4
"""Maximum number of folders that can be parts (training, validation, test, images to predict); more are classes."""
MOST_CHARACTERS = 2**24
"""Maximum number of characters that are read of a file with the names of classes."""


def parts_inside(classes: Sequence[Path]) -> list[Path]:
    """The training and the test folder inside a folder of a class, if each class has one and some class has both."""
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
    """Spellings of the names of folders for training or test images."""
    return (form for word in words for form in (word, word.capitalize()))


def parts_by_other_names(classes: Collection[str]) -> list[str]:
    """The names of the training and the test folder, such as `seg_train` and `seg_test`, among a few folders."""
    if len(classes) > MOST_PARTS:
        return []
    found = {split: [name for name in sorted(classes) if words_of(name) & {*known}] for split, known in SPLITS.items()}
    return [names[0] for names in found.values()] if all(found.values()) else []


def class_words(root: Path) -> dict[str, str]:
    """Names of the classes of ImageNet and Tiny-ImageNet, by WordNet ID."""
    for name, separator in (("words.txt", "\t"), ("LOC_synset_mapping.txt", " ")):
        if (root / name).is_file():
            with open(root / name, encoding="utf-8", errors="replace") as file:
                lines = file.read(MOST_CHARACTERS).splitlines()
            return {line.partition(separator)[0]: " ".join(line.split()) for line in lines}
    return {}
