"""Sources of images, one file per kind. Sources in a new file in this folder are found by name."""

from bdclean.data.sources.base import Source
from bdclean.discovery import find_classes
from bdclean.registry import is_source, no_source

__all__ = ["Source", "is_poisoned", "open_source", "size_of"]

KINDS: list[type[Source]] = find_classes(__name__, __path__, Source)


def open_source(name: str, root: str = "data", parameter: str = "data.source") -> Source:
    """Open a source of images by name.

    Args:
        name: `shapes`, a torchvision set (`cifar10`, ...), an `.npz` file, or a folder; and for images without labels
            an `.npy` file or `procedural`.
        root: Folder of torchvision's files, and for downloads.
        parameter: The parameter that the user gave the name with, for messages.

    Raises:
        InputError: If there is no such source.
    """
    for kind in KINDS:
        if kind.has_name(name):
            return kind(name, root, parameter)
    raise no_source(parameter, name)


def is_poisoned(source: object) -> bool:
    """Whether the value of `data.source` is a set that has been poisoned and says so.

    Raises:
        InputError: If the set cannot be read.
    """
    return isinstance(source, str) and is_source(source) and open_source(source).poisoned is not None


def size_of(source: str | None, unlabeled: str | None, root: str) -> int | None:
    """Image size, in pixels, of the first of two sources that has a fixed size; None if neither has.

    Args:
        source: Source of labelled images.
        unlabeled: Source of unlabeled images.
        root: Folder of torchvision's files.

    Raises:
        InputError: If there is no such source.
    """
    names = ((source, "data.source"), (unlabeled, "data.unlabeled"))
    sizes = (open_source(name, root, parameter).image_size for name, parameter in names if name is not None)
    return next((size for size in sizes if size is not None), None)
