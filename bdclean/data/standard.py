"""torchvision's sets of images, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torchvision import datasets

from bdclean import InputError, first_line
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images
from bdclean.traces import removed_if_empty


@dataclass(frozen=True)
class Standard:
    """What is known of a torchvision set before it has been downloaded."""

    dataset: type
    num_classes: int
    image_size: int
    file: str
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
"""What the signs are called, in the order of their numbers."""

STANDARD = {
    "cifar10": Standard(
        datasets.CIFAR10,
        10,
        32,
        "cifar-10-python.tar.gz",
        names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Standard(
        datasets.CIFAR100,
        100,
        32,
        "cifar-100-python.tar.gz",
        names=tuple(name.replace("_", " ") for name in CIFAR100.split()),
    ),
    "gtsrb": Standard(
        datasets.GTSRB,
        43,
        32,
        "gtsrb/ (unpacked)",
        uses_split=True,
        names=tuple(" ".join(name.split()) for name in GTSRB.split(";")),
    ),
    "svhn": Standard(datasets.SVHN, 10, 32, "train_32x32.mat and test_32x32.mat", uses_split=True),
    "stl10": Standard(
        datasets.STL10,
        10,
        96,
        "stl10_binary.tar.gz",
        uses_split=True,
        names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    ),
    # 28 pixels in the files; 32 is what networks with five halvings need.
    "mnist": Standard(datasets.MNIST, 10, 32, "MNIST/raw/ (four idx files)"),
    "fashion_mnist": Standard(
        datasets.FashionMNIST,
        10,
        32,
        "FashionMNIST/raw/ (four idx files)",
        names=tuple(datasets.FashionMNIST.classes),
    ),
}


def download_standard(name: str, root: str, option: str) -> None:
    """Fetch both parts of a set if its files are not there: to be called by one process.

    Args:
        name: Of the set.
        root: Folder in which its files are looked for and downloaded to.
        option: The option that named it, for messages.

    Raises:
        InputError: If that fails.
    """
    lock = Path(root, f"{name}.lock")
    try:
        # Other programs may be at it too: the cells of a benchmark.
        with removed_if_empty(lock.parent), FileLock(lock):
            try:
                for split in ("train", "test"):
                    _standard(name, root, option, split, download=True)
            except InputError:
                lock.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputError(f"--data.root {root}: cannot be written ({error.strerror})") from error


def load_standard(name: str, root: str, option: str, split: str, image_size: int) -> Images:
    """A part of a set whose files are there; as `download_standard`.

    Args:
        name: Of the set.
        root: Folder in which its files lie.
        option: The option that named it, for messages.
        split: `train` or `test`.
        image_size: Height and width that the images shall have, in pixels.
    """
    data = _standard(name, root, option, split, download=False)
    if isinstance(data, datasets.GTSRB):
        paths = [Path(path) for path, _ in data._samples]
        return FileImages(paths, image_size, option, torch.tensor([label for _, label in data._samples]))
    pixels = torch.as_tensor(data.data)
    labels = torch.as_tensor(data.labels if hasattr(data, "labels") else data.targets).long()
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.shape[1] == 3:
        pixels = pixels.permute(0, 2, 3, 1).contiguous()
    return ArrayImages(pixels, image_size, labels)


def _standard(name: str, root: str, option: str, split: str, download: bool) -> Any:
    known = STANDARD[name]
    which: dict[str, Any] = {"split": split} if known.uses_split else {"train": split == "train"}
    try:
        return known.dataset(root, download=download, **which)
    except ModuleNotFoundError as error:
        raise InputError(f"{option}: torchvision reads it with {error.name}: pip install {error.name}") from error
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{option}: not in {root}/, and the download failed ({first_line(error)}); put {known.file} into {root}/ "
            "(--data.root), or take another source: shapes, a folder, an .npz file"
        ) from error
