"""The metadata in BackdoorBench's `attack_result.pt`.

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
"""Our names of networks that are not torchvision's, by BackdoorBench's name."""
NORMALIZATIONS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "tiny": ([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "gtsrb": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    "celeba": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}
"""Mean and std of each of its data sets."""
VIT_SIZE = 224
"""Size to which its vision transformers resize all images, in pixels."""


@dataclass(frozen=True)
class Triggered:
    """Test images with the trigger.

    Attributes:
        images: The files, or the images themselves: pictures, or (N, H, W, 1 or 3) uint8.
        targets: (N,) target classes.
        labels: (N,) true classes.
    """

    images: list[Path] | list[Image.Image] | Tensor
    targets: Tensor
    labels: Tensor


def wrote(content: Any) -> bool:
    """Whether a file looks like BackdoorBench's."""
    return isinstance(content, dict) and {"model_name", "num_classes", "model", "img_size", "clean_data"} <= {*content}


def network(content: dict[str, Any]) -> dict[str, Any]:
    """The network of a BackdoorBench file, as unchecked arguments of a Suspect."""
    arch, size, data = content["model_name"], content["img_size"], content["clean_data"]
    size = size[0] if isinstance(size, (list, tuple, torch.Size)) and size else size
    model: dict[str, Any] = {"arch": ARCHS.get(arch, arch) if isinstance(arch, str) else arch}
    model |= {"num_classes": content["num_classes"], "image_size": size}
    if model["arch"] not in ARCHS.values():
        model["stem"] = "photo"
    if str(model["arch"]).startswith("vit"):
        model |= {"image_size": VIT_SIZE, "stem": None}
    if isinstance(data, str) and data in NORMALIZATIONS:
        model["mean"], model["std"] = NORMALIZATIONS[data]
    return model


def triggered(content: dict[str, Any], path: str) -> Triggered | None:
    """The triggered test images of a BackdoorBench file, from the file itself or from its folder.

    The file has the images' original paths; only their last three parts are used, relative to the file's folder.
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
