"""Networks and images straight from a user's hands: which normalisation belongs to them, and images of any kind."""

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
from bdclean.models import Moments
from bdclean.modules import Classifier
from bdclean.resizing import Resize


@dataclass(frozen=True)
class Handed:
    """A network, and what is known of the images that it takes.

    Attributes:
        network: Takes normalised images.
        mean: As in `bdclean.cleanse`; None if nothing says it.
        std: The same.
        image_size: Height and width of its images, in pixels; None if nothing says it.
        resize: How pictures become its images; None if this program's own way is used.
        explicit: Whether the mean and std are those that float images are to be normalised by; else float images are
            what the network takes.
        class_names: What its classes are called; empty if nothing says it.
    """

    network: nn.Module
    mean: Moments
    std: Moments
    image_size: int | None
    resize: Resize | None
    explicit: bool
    class_names: tuple[str, ...]


def handed(model: Any, processor: Any, mean: Moments, std: Moments, image_size: int | None) -> Handed:
    """A network with the normalisation that belongs to it: what the user says, or a processor, or the network itself.

    Args:
        model: The network: of timm, transformers or anybody; or a Classifier of this program.
        processor: An image processor of transformers, a data configuration of timm, or None.
        mean: As the user gives it.
        std: As the user gives it.
        image_size: As the user gives it.

    Raises:
        InputError: If the model is no network, or the processor does what this program cannot.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", None, f"is a {type(model).__name__}, not a torch.nn.Module")
    if processor is not None and (mean is not None or std is not None):
        raise InputError("processor", None, "says mean and std already; give one of them")
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
        return Handed(network, mean, std, found.image_size, found.resize, explicit, names)
    return Handed(network, mean, std, image_size, None, explicit, names)


def _prepared(model: nn.Module, processor: Any) -> Preparation:
    """What a processor says, or the description that timm gives its networks."""
    try:
        if processor is None:
            own = getattr(model, "pretrained_cfg", None)
            return of_timm(own) if isinstance(own, Mapping) and "mean" in own else Preparation()
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


def unprocessed(pixels: Tensor, mean: Moments, std: Moments) -> Tensor:
    """Images (N, H, W, C) in [0, 1], of such images or of those that a processor has normalised.

    Args:
        pixels: uint8, or float.
        mean: Of each channel.
        std: Of each channel.
    """
    within = not pixels.is_floating_point() or (pixels.min() >= 0 and pixels.max() <= 1)
    if within or not isinstance(mean, list) or not isinstance(std, list):
        return pixels
    return (pixels * torch.tensor(std) + torch.tensor(mean)).clamp(0, 1)


def gathered(images: Any, count: int, image_size: int | None, resize: Resize | None = None) -> Tensor:
    """The images of a tensor, a loader, or a list of pictures, (N, H, W, C), uint8 or float.

    Args:
        images: A tensor (N, C, H, H); pictures of Pillow; or batches, of which the first entry, or the one called
            `pixel_values` or `image`, is used.
        count: How many are used at most.
        image_size: What pictures are cut and resized to, in pixels.
        resize: As in `bdclean.decoding.square`.

    Raises:
        InputError: If they are something else.
    """
    if isinstance(images, Tensor):
        return as_pixels(images)
    first, rest = _peeked(images)
    if not isinstance(_picture(first), Image.Image):
        return as_pixels(collect((_picture(batch) for batch in rest), count))
    if image_size is None:
        raise InputError("image_size", None, "needed, as nothing says how large the network's images are")
    pictures = []
    for entry in rest:
        picture = _picture(entry)
        if not isinstance(picture, Image.Image):
            raise InputError("images", None, f"gives {type(picture).__name__} among pictures")
        # A copy, as it is turned the way its camera was held.
        pictures.append(square(picture.copy(), image_size, resize))
        if len(pictures) >= count:
            break
    return as_pixels(torch.stack(pictures).permute(0, 3, 1, 2))


def _peeked(images: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first entry, and all of them."""
    entries = iter(images)
    first = next(entries, None)

    def every() -> Iterable[Any]:
        if first is not None:
            yield first
            yield from entries

    return first, every()


def _picture(entry: Any) -> Any:
    """The images of a batch, or the picture of an entry of a data set."""
    if isinstance(entry, Mapping):
        return next((entry[name] for name in ("pixel_values", "image", "img") if name in entry), entry)
    return entry
