"""What BackdoorBench's `attack_result.pt` says beside the weights.

Source: Wu et al., "BackdoorBench: A Comprehensive Benchmark of Backdoor Learning", NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ARCHS = {"preactresnet18": "preact_resnet18", "preactresnet34": "preact_resnet34"}
"""Networks that have another name there; the others are torchvision's."""
NORMALIZATIONS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "tiny": ([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "gtsrb": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    "celeba": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}
"""How it normalises the images of each of its data sets."""
VIT_SIZE = 224
"""Its vision transformers enlarge all images to that."""


@dataclass(frozen=True)
class Triggered:
    """Test images with the trigger.

    Attributes:
        images: Their files, or the images.
        targets: (N,) the class that the attacker wants.
        labels: (N,) true classes.
    """

    images: list[Path] | list[Image.Image]
    targets: Tensor
    labels: Tensor


def wrote(content: Any) -> bool:
    """Whether a file looks like BackdoorBench's."""
    return isinstance(content, dict) and {"model_name", "num_classes", "model", "img_size", "clean_data"} <= {*content}


def network(content: dict[str, Any]) -> dict[str, Any]:
    """Its network, as arguments of a Suspect: none of them vetted."""
    arch, size, data = content["model_name"], content["img_size"], content["clean_data"]
    size = size[0] if isinstance(size, (list, tuple, torch.Size)) and size else size
    said: dict[str, Any] = {"arch": ARCHS.get(arch, arch) if isinstance(arch, str) else arch}
    said |= {"num_classes": content["num_classes"], "image_size": size}
    if said["arch"] not in ARCHS.values():
        said["stem"] = "photo"
    if str(said["arch"]).startswith("vit"):
        said |= {"image_size": VIT_SIZE, "stem": None}
    if isinstance(data, str) and data in NORMALIZATIONS:
        said["mean"], said["std"] = NORMALIZATIONS[data]
    return said


def triggered(content: dict[str, Any], path: str) -> Triggered | None:
    """Its triggered test images, if they are in the file, or in the folder that the file lies in.

    The file names the images' own places; of these only the last three parts are looked for, beside the file.
    """
    try:
        entries = content["bd_test"]["bd_data_container"]["data_dict"].values()
        rows = [_row(entry, Path(path).resolve().parent) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError):
        return None
    images = [image for image, _, _ in rows]
    kinds = {None if isinstance(image, Path) else image.size for image in images}
    if len(kinds) != 1:
        return None
    return Triggered(images, torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows]))


def _row(entry: Any, folder: Path) -> tuple[Any, int, int]:
    """Image, target and true class."""
    if not isinstance(entry, (dict, list, tuple)):
        raise TypeError
    image, (target, label, *_) = (
        (entry["path"], entry["other_info"]) if isinstance(entry, dict) else (entry[0], entry[1:])
    )
    if isinstance(image, str):
        parts = PurePosixPath(image.replace("\\", "/")).parts[-3:]
        image = folder.joinpath(*parts).resolve()
        if not image.is_relative_to(folder) or not image.is_file():
            raise ValueError
    elif not isinstance(image, Image.Image):
        raise ValueError
    if not all(isinstance(number, (int, np.integer)) and 0 <= number < 10**6 for number in (target, label)):
        raise ValueError
    return image, int(target), int(label)
