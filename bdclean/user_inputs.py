"""Networks and images that a user passes to the Python API: their normalisation, and images of any kind as a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from bdclean.data.memory import as_pixels, collect
from bdclean.data.notices import say
from bdclean.decoding import square
from bdclean.errors import InputError
from bdclean.hub import names_of
from bdclean.hub.processors import Preparation, of_timm, of_transformers
from bdclean.hub.resizes import UnknownPreparationError
from bdclean.modules import Classifier
from bdclean.networks import Moments
from bdclean.resizing import Resize


@dataclass(frozen=True)
class UserNetwork:
    """A network, and the normalisation and size of the images that it expects.

    Attributes:
        network: A module that takes normalised images.
        mean: Mean of the channels, as in `bdclean.cleanse`; None if unknown.
        std: Standard deviation of the channels, as in `bdclean.cleanse`; None if unknown.
        image_size: Height and width of its images, in pixels; None if unknown.
        resize: How image files become its images; None if their largest central square is resized.
        explicit: Whether float images have to be normalised by `mean` and `std`; otherwise float images are normalised
            already.
        class_names: Names of the classes; empty if unknown.
    """

    network: nn.Module
    mean: Moments
    std: Moments
    image_size: int | None
    resize: Resize | None
    explicit: bool
    class_names: tuple[str, ...]


def with_normalization(model: Any, processor: Any, mean: Moments, std: Moments, image_size: int | None) -> UserNetwork:
    """A network with its normalisation, from the user, from a processor, or from the network itself.

    Args:
        model: A module of the user's, of timm or transformers, or a Classifier of this program.
        processor: An image processor of transformers, a data configuration of timm, or None.
        mean: Mean that the user gave.
        std: Standard deviation that the user gave.
        image_size: Height and width that the user gave, in pixels.

    Raises:
        InputError: If the model is not a module, or the processor has an unsupported step.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", None, f"is a {type(model).__name__}, not a torch.nn.Module")
    if processor is not None and (mean is not None or std is not None):
        raise InputError("processor", None, "sets mean and std already; pass one of them")
    if isinstance(model, Classifier):
        network, found = model.network, Preparation(model.hparams["mean"], model.hparams["std"], model.image_size)
        names = model.class_names
    else:
        network, found = model, _prepared(model, processor)
        if found.note:
            say(f"processor: {found.note}")
        names = names_of(getattr(getattr(model, "config", None), "id2label", None))
    explicit = processor is not None or isinstance(model, Classifier) or mean is not None or std is not None
    if mean is None and std is None:
        mean, std = found.mean, found.std
    if image_size is None or image_size == found.image_size:
        return UserNetwork(network, mean, std, found.image_size, found.resize, explicit, names)
    return UserNetwork(network, mean, std, image_size, None, explicit, names)


def _prepared(model: nn.Module, processor: Any) -> Preparation:
    """The normalisation of a processor, or the one that timm stores in its networks."""
    try:
        if processor is None:
            config = getattr(model, "pretrained_cfg", None)
            return of_timm(config) if isinstance(config, Mapping) and "mean" in config else Preparation()
        if callable(getattr(processor, "to_dict", None)):
            said = processor.to_dict()
            # A network of timm in transformers has a processor of its own kind.
            return of_timm(said["data_config"]) if "data_config" in said else of_transformers(said)
        if isinstance(processor, Mapping):
            return of_timm(processor) if "mean" in processor else of_transformers(processor)
    except UnknownPreparationError as error:
        raise InputError("processor", None, str(error)) from error
    raise InputError(
        "processor",
        None,
        f"is a {type(processor).__name__}; expected an image processor of transformers, or what "
        "timm.data.resolve_model_data_config returns",
    )


def undo_normalization(pixels: Tensor, mean: Moments, std: Moments) -> Tensor:
    """Undo the normalisation of images (N, H, W, C) that a processor has normalised; return others unchanged.

    Args:
        pixels: uint8, or float.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """
    in_range = not pixels.is_floating_point() or (pixels.min() >= 0 and pixels.max() <= 1)
    if in_range or not isinstance(mean, list) or not isinstance(std, list):
        return pixels
    return (pixels * torch.tensor(std) + torch.tensor(mean)).clamp(0, 1)


def gather(images: Any, count: int, image_size: int | None, resize: Resize | None = None) -> Tensor:
    """The images of a tensor, a loader, or a list of Pillow images, as one tensor (N, H, W, C), uint8 or float.

    Args:
        images: A tensor (N, C, H, H); Pillow images; or batches, whose first entry, or the entry `pixel_values` or
            `image`, is used.
        count: Maximum number of images.
        image_size: Height and width in pixels to which Pillow images are cropped and resized.
        resize: How Pillow images become square, as in `bdclean.decoding.square`.

    Raises:
        InputError: If the images are of another kind.
    """
    if isinstance(images, Tensor):
        return as_pixels(images)
    first, entries = _peek(images)
    if not isinstance(_picture(first), Image.Image):
        return as_pixels(collect((_picture(batch) for batch in entries), count))
    if image_size is None:
        raise InputError("image_size", None, "needed, as the image size of the network is unknown")
    pictures = []
    for entry in entries:
        picture = _picture(entry)
        if not isinstance(picture, Image.Image):
            raise InputError("images", None, f"gives {type(picture).__name__} among pictures")
        # `square` rotates the image in place.
        pictures.append(square(picture.copy(), image_size, resize))
        if len(pictures) >= count:
            break
    return as_pixels(torch.stack(pictures).permute(0, 3, 1, 2))


def _peek(images: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first entry, and an iterable over all entries, including the first."""
    entries = iter(images)
    first = next(entries, None)

    def every() -> Iterable[Any]:
        if first is not None:
            yield first
            yield from entries

    return first, every()


def _picture(entry: Any) -> Any:
    """The images of a batch, or the image of an entry of a data set."""
    if isinstance(entry, Mapping):
        return next((entry[name] for name in ("pixel_values", "image", "img") if name in entry), entry)
    return entry
