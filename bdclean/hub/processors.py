"""How a processor prepares images, in this program's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdclean.hub import resizes
from bdclean.hub.completing import completed
from bdclean.hub.resizes import UnknownPreparationError
from bdclean.resizing import Resize

BYTE = 255
"""The largest value of a channel of a decoded image."""


@dataclass(frozen=True)
class Preparation:
    """What a network takes; None where the processor does not say it.

    Attributes:
        mean: Subtracted from each channel of an image in [0, 1].
        std: Each channel is divided by it after that.
        image_size: Height and width, in pixels.
        resize: How pictures become such images; None if this program's own way is used.
        note: What is done otherwise than by the processor, in a line; None if nothing.
    """

    mean: list[float] | None = None
    std: list[float] | None = None
    image_size: int | None = None
    resize: Resize | None = None
    note: str | None = None


def of_transformers(said: Mapping[str, Any], model_type: str = "") -> Preparation:
    """What the image processor of transformers says.

    Args:
        said: The content of its file.
        model_type: Of the network beside it; it says which processor it is, where the file does not.

    Raises:
        UnknownPreparationError: If it does more than to resize, to crop and to normalise, or its numbers are none.
    """
    said = completed(said, model_type)
    if said.get("do_flip_channel_order"):
        raise UnknownPreparationError("do_flip_channel_order: the network takes BGR images, which bdclean does not")
    if said.get("do_color_quantize"):
        raise UnknownPreparationError("do_color_quantize: the network takes no pixels")
    # The processor computes (255 * factor * x - offset - mean) / std, or leaves out parts of it.
    factor = _number(said.get("rescale_factor", 1 / BYTE)) if said.get("do_rescale", True) else 1.0
    scale = BYTE * factor
    offset = 1.0 if said.get("rescale_offset") else 0.0
    mean, std = [0.0], [1.0]
    if said.get("do_normalize", True):
        if said.get("image_mean") is None or said.get("image_std") is None:
            return _prepared(None, None, resizes.of_transformers(said))
        mean, std = _numbers(said["image_mean"]), _numbers(said["image_std"])
    if scale <= 0:
        raise UnknownPreparationError(f"rescale_factor {said.get('rescale_factor')!r}: must be above 0")
    # `include_top` of EfficientNet divides by std a second time.
    power = 2 if said.get("include_top") else 1
    means = [(offset + value) / scale for value in mean]
    stds = [value**power / scale for value in std]
    return _prepared(means, stds, resizes.of_transformers(said))


def of_timm(said: Mapping[str, Any]) -> Preparation:
    """What the `pretrained_cfg` of timm says.

    Raises:
        UnknownPreparationError: If its numbers are none.
    """
    given = None not in (said.get("mean"), said.get("std"))
    mean, std = (_numbers(said[name]) if given else None for name in ("mean", "std"))
    return _prepared(mean, std, resizes.of_timm(said))


def _prepared(mean: list[float] | None, std: list[float] | None, sizes: resizes.Sizes) -> Preparation:
    return Preparation(mean, std, sizes.image_size, sizes.resize, sizes.note)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnknownPreparationError(f"{str(value)[:40]!r} is no number")
    return float(value)


def _numbers(value: Any) -> list[float]:
    return [_number(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
