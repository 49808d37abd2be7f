"""torchvision's data sets, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets

from bdclean import first_line
from bdclean.data.cache import cached, identity
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images
from bdclean.data.sources.base import Source
from bdclean.errors import Given, InputError
from bdclean.traces import removed_if_empty


@dataclass(frozen=True)
class Known:
    """Description of a torchvision data set.

    Attributes:
        dataset: Its class.
        num_classes: Number of classes.
        image_size: Height and width to which its images are resized, in pixels.
        file: Files that the user can put into `--data.root`, for messages.
        files: Pattern of the array files that it is read from; empty if it consists of image files.
        uses_split: Whether its class has the argument `split`, not `train`.
        names: Names of the classes.
    """

    dataset: type
    num_classes: int
    image_size: int
    file: str
    files: str = ""
    uses_split: bool = False
    names: tuple[str, ...] = ()


CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
    tulip turtle wardrobe whale willow_tree wolf woman worm
"""
GTSRB = """
    speed limit 20; speed limit 30; speed limit 50; speed limit 60; speed limit 70; speed limit 80; end of speed limit
    80; speed limit 100; speed limit 120; no overtaking; no overtaking by lorries; priority at the next crossing;
    priority road; give way; stop; no vehicles; no lorries; no entry; danger; bend to the left; bend to the right;
    double bend; uneven road; slippery road; road narrows on the right; road works; traffic lights; pedestrians;
    children; bicycles; ice or snow; wild animals; end of all limits; turn right; turn left; ahead only; ahead or
    right; ahead or left; keep right; keep left; roundabout; end of no overtaking; end of no overtaking by lorries
"""
"""Names of the signs, in the order of their numbers."""

NAMES = {
    "cifar10": Known(
        datasets.CIFAR10,
        10,
        32,
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py/*",
        names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Known(
        datasets.CIFAR100,
        100,
        32,
        "cifar-100-python.tar.gz",
        "cifar-100-python/*",
        names=tuple(name.replace("_", " ") for name in CIFAR100.split()),
    ),
    "gtsrb": Known(
        datasets.GTSRB,
        43,
        32,
        "gtsrb/ (unpacked)",
        uses_split=True,
        names=tuple(" ".join(name.split()) for name in GTSRB.split(";")),
    ),
    "svhn": Known(datasets.SVHN, 10, 32, "train_32x32.mat and test_32x32.mat", "*_32x32.mat", True),
    "stl10": Known(
        datasets.STL10,
        10,
        96,
        "stl10_binary.tar.gz",
        "stl10_binary/*",
        uses_split=True,
        names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    ),
    # The files have 28 pixels, but networks that halve the size five times need 32.
    "mnist": Known(datasets.MNIST, 10, 32, "MNIST/raw/ (four idx files)", "MNIST/raw/*-ubyte"),
    "fashion_mnist": Known(
        datasets.FashionMNIST,
        10,
        32,
        "FashionMNIST/raw/ (four idx files)",
        "FashionMNIST/raw/*-ubyte",
        names=tuple(datasets.FashionMNIST.classes),
    ),
}


class Standard(Source):
    """A data set that torchvision reads, and downloads if its files are missing."""

    def __init__(self, name: str, root: str, parameter: str) -> None:
        super().__init__(name, root, parameter)
        self.known = NAMES[name]
        self.image_size = self.known.image_size

    @classmethod
    def has_name(cls, name: str) -> bool:
        return name in NAMES

    @property
    def num_classes(self) -> int:
        return self.known.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.known.names

    def has(self, split: str) -> bool:
        return split in ("train", "test")

    def download(self) -> None:
        """Download both parts if the files are missing; called by one process.

        Raises:
            InputError: If the download fails.
        """
        lock = Path(self.root, f"{self.name}.lock")
        try:
            # Other processes, such as the cells of a benchmark, may download at the same time.
            with removed_if_empty(lock.parent), FileLock(lock):
                try:
                    for split in ("train", "test"):
                        self._read(split, download=True)
                except InputError:
                    lock.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise InputError("data.root", self.root, f"cannot be written ({error.strerror})") from error

    def load(self, split: str, image_size: int) -> Images:
        if not self.known.files:
            data = self._read(split, download=False)
            paths = [Path(path) for path, _ in data._samples]
            return FileImages(paths, image_size, self.option, torch.tensor([label for _, label in data._samples]))
        files = [identity(path) for path in sorted(Path(self.root).glob(self.known.files))]
        pixels, labels = cached([self.name, split, files], lambda: _arrays(self._read(split, download=False)))
        return ArrayImages(pixels, image_size, labels)

    def _read(self, split: str, download: bool) -> Any:
        which: dict[str, Any] = {"split": split} if self.known.uses_split else {"train": split == "train"}
        try:
            return self.known.dataset(self.root, download=download, **which)
        except ModuleNotFoundError as error:
            raise InputError(
                *self.option, f"torchvision reads it with {error.name}: pip install {error.name}"
            ) from error
        except (RuntimeError, OSError) as error:
            raise InputError(
                *self.option,
                f"not in {self.root}/, and the download failed ({first_line(error)}); put "
                f"{self.known.file} into {self.root}/ ({Given('data.root')}), or take another source: "
                "shapes, a folder, an .npz file",
            ) from error


def _arrays(data: Any) -> tuple[Tensor, Tensor]:
    """Pixels, (N, H, W, 1 or 3), and labels of a torchvision data set."""
    pixels = torch.as_tensor(data.data)
    labels = torch.as_tensor(data.labels if hasattr(data, "labels") else data.targets).long()
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.shape[1] == 3:
        pixels = pixels.permute(0, 2, 3, 1).contiguous()
    return pixels, labels
