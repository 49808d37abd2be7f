"""Base class of all sources of images."""

from __future__ import annotations

from abc import ABC, abstractmethod

from bdclean.checkpoint import Triggered
from bdclean.data.images import Images
from bdclean.data.poisoned_sets import Facts
from bdclean.errors import Given

LISTED = 10
"""Maximum number of classes that are listed."""


class Source(ABC):
    """A labelled or unlabeled set of images with a training and a test part, either of which may be missing.

    A new kind is a subclass in a separate file. Names that are no files are listed in that file as `NAMES`.

    Args:
        name: The value of the option.
        root: Folder for downloads.
        parameter: The parameter that the name was given with, for messages.

    Attributes:
        option: That parameter and the name.
        image_size: Height and width of the images, in pixels; None if they are of any size.
    """

    image_size: int | None = None

    def __init__(self, name: str, root: str, parameter: str) -> None:
        self.name = name
        self.root = root
        self.option = Given(parameter, name)

    @classmethod
    @abstractmethod
    def has_name(cls, name: str) -> bool:
        """Whether a value belongs to this kind; no value belongs to two kinds."""

    # Classes; not read for unlabeled images

    @property
    def num_classes(self) -> int:
        """Number of classes, including classes below the largest number that have no images; 0 without labels."""
        return 0

    @property
    def numbered(self) -> bool:
        """Whether the classes are named by their numbers, of which some may be missing."""
        return False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers; empty if they have none."""
        return ()

    @property
    def notices(self) -> list[str]:
        """Notices for the user about the labels, one line each."""
        return []

    def describe(self) -> str:
        """The classes in order, in one line."""
        if self.class_names:
            listed = "; ".join(f"{number} {name}" for number, name in enumerate(self.class_names[:LISTED]))
            more = len(self.class_names) - LISTED
            return f"Classes of {self.option}: {listed}" + (f"; and {more} more" if more > 0 else "")
        return f"Classes of {self.option}: numbers, 0 to {self.num_classes - 1}"

    def has(self, split: str) -> bool:
        """Whether there is a `train` or `test` part with labels."""
        return False

    @property
    def poisoned(self) -> Facts | None:
        """Which training images are poisoned, if the source says so; no attack is added to them."""
        return None

    # Images

    def triggered(self) -> Triggered | None:
        """Test images with the trigger, if the source has some.

        Raises:
            InputError: If they are unreadable, or have classes that the training images do not have.
        """
        return None

    def download(self) -> None:  # noqa: B027  # most have nothing to fetch
        """Download missing files; called by one process."""

    def load(self, split: str, image_size: int) -> Images:
        """The images of a part that the source `has`.

        Args:
            split: `train` or `test`.
            image_size: Height and width of the result, in pixels.

        Raises:
            InputError: If the part is missing or unreadable.
        """
        raise NotImplementedError

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> Images:
        """All images that can be used without labels: by default the training part.

        Args:
            image_size: Height and width of the result, in pixels.
            count: Number of images, if the program draws them.
            seed: Seed of drawn images.
        """
        return self.load("train", image_size)


def count_from_one(option: Given, classes: frozenset[int]) -> list[str]:
    """A notice if labels seem to count from 1; empty otherwise.

    Args:
        option: The parameter that named the images.
        classes: The classes that have images.
    """
    if min(classes, default=0) != 1:
        return []
    return [
        f"{option}: the labels go from 1 to {max(classes)}, and none is 0. If they count from 1, subtract 1 from each: "
        "networks count from 0"
    ]
