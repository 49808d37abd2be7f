"""Reading normalisation and resizing from a processor's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdclean.hub import resizes
from bdclean.hub.completing import completed
from bdclean.hub.resizes import UnknownPreparationError
from bdclean.resizing import Resize

BYTE = 255
"""Largest value of a channel in a decoded image."""


@dataclass(frozen=True)
class Preparation:
    """The normalisation and size of a network's images; None if the processor does not contain the value.

    Attributes:
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel, for images in [0, 1].
        image_size: Height and width, in pixels.
        resize: Resizing of images; None for this program's default.
        note: Difference from the processor, in one line; None if there is none.
    """

    mean: list[float] | None = None
    std: list[float] | None = None
    image_size: int | None = None
    resize: Resize | None = None
    note: str | None = None


def of_transformers(config: Mapping[str, Any], model_type: str = "") -> Preparation:
    """Read the configuration of an image processor of transformers.

    Args:
        config: Content of its file.
        model_type: `model_type` of the network, which determines the processor if the file does not.

    Raises:
        UnknownPreparationError: If it has steps other than resizing, cropping and normalising, or invalid numbers.
    """
    config = completed(config, model_type)
    if config.get("do_flip_channel_order"):
        raise UnknownPreparationError("do_flip_channel_order: BGR images are not supported")
    if config.get("do_color_quantize"):
        raise UnknownPreparationError("do_color_quantize: the network takes colour clusters, not pixels")
    # The processor computes (255 * factor * x - offset - mean) / std, or omits parts of it.
    factor = _number(config.get("rescale_factor", 1 / BYTE)) if config.get("do_rescale", True) else 1.0
    scale = BYTE * factor
    offset = 1.0 if config.get("rescale_offset") else 0.0
    mean, std = [0.0], [1.0]
    if config.get("do_normalize", True):
        if config.get("image_mean") is None or config.get("image_std") is None:
            return _prepared(None, None, resizes.of_transformers(config))
        mean, std = _numbers(config["image_mean"]), _numbers(config["image_std"])
    if scale <= 0:
        raise UnknownPreparationError(f"rescale_factor {config.get('rescale_factor')!r}: must be above 0")
    # `include_top` of EfficientNet divides by std a second time.
    power = 2 if config.get("include_top") else 1
    means = [(offset + value) / scale for value in mean]
    stds = [value**power / scale for value in std]
    return _prepared(means, stds, resizes.of_transformers(config))


def of_timm(config: Mapping[str, Any]) -> Preparation:
    """Read a `pretrained_cfg` of timm.

    Raises:
        UnknownPreparationError: If its numbers are invalid.
    """
    given = None not in (config.get("mean"), config.get("std"))
    mean, std = (_numbers(config[name]) if given else None for name in ("mean", "std"))
    return _prepared(mean, std, resizes.of_timm(config))


def _prepared(mean: list[float] | None, std: list[float] | None, sizes: resizes.Sizes) -> Preparation:
    return Preparation(mean, std, sizes.image_size, sizes.resize, sizes.note)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnknownPreparationError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _numbers(value: Any) -> list[float]:
    return [_number(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
