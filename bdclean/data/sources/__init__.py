"""Where images come from, one file a kind: what a new file defines can be named at once."""

from bdclean.data.sources.base import Source
from bdclean.discovery import find_classes
from bdclean.registry import no_source

__all__ = ["Source", "open_source", "size_of"]

KINDS: list[type[Source]] = find_classes(__name__, __path__, Source)


def open_source(name: str, root: str = "data", parameter: str = "data.source") -> Source:
    """The source of images of a name.

    Args:
        name: `shapes`, a torchvision set (`cifar10`, ...), an `.npz` file, or a folder; and for images without labels
            an `.npy` file or `procedural`.
        root: Folder in which torchvision's files are looked for and downloaded to.
        parameter: The parameter that the name was given with, for messages.

    Raises:
        InputError: If there is no such source.
    """
    for kind in KINDS:
        if kind.has_name(name):
            return kind(name, root, parameter)
    raise no_source(parameter, name)


def size_of(source: str | None, unlabeled: str | None, root: str) -> int | None:
    """Height and width of the images of the first of two sources that says so, in pixels; None if neither does.

    Args:
        source: As in PoisonDataModule.
        unlabeled: As in PoisonDataModule.
        root: As in PoisonDataModule.

    Raises:
        InputError: If there is no such source.
    """
    names = ((source, "data.source"), (unlabeled, "data.unlabeled"))
    sizes = (open_source(name, root, parameter).image_size for name, parameter in names if name is not None)
    return next((size for size in sizes if size is not None), None)
