"""Reading the resizing and cropping of a processor from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdclean.resizing import INTERPOLATIONS, LARGEST, Edges, Resize

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Maps Pillow's numbers of interpolations to names."""
CONVNEXT, LEVIT, POOLFORMER = "ConvNextImageProcessor", "LevitImageProcessor", "PoolFormerImageProcessor"
"""Processors of transformers that enlarge `size` before they crop."""
STRETCHED = 384
"""Smallest `size`, in pixels, for which ConvNext's processor resizes both edges without cropping."""
OTHERS = (
    "DonutImageProcessor",
    "Gemma3ImageProcessor",
    "PPLCNetImageProcessor",
    "PerceiverImageProcessor",
    "Siglip2ImageProcessor",
    "TextNetImageProcessor",
)
"""Processors with unsupported ways of resizing."""
INSTEAD = "; instead, the largest square in the centre of a picture is resized"


class UnknownPreparationError(ValueError):
    """A processor has an unsupported step."""


@dataclass(frozen=True)
class Sizes:
    """Size and resizing of a processor's images.

    Attributes:
        image_size: Height and width, in pixels; None if the processor does not contain them.
        resize: The resizing; None if the processor does not contain it, or it is not supported.
        note: Difference of this program from the processor, in one line; None if there is none.
    """

    image_size: int | None = None
    resize: Resize | None = None
    note: str | None = None


def of_transformers(config: Mapping[str, Any]) -> Sizes:
    """Read the configuration of an image processor of transformers.

    Args:
        config: Its completed entries.

    Raises:
        UnknownPreparationError: If a size is not a number of pixels, or too large.
    """
    kind = str(config.get("image_processor_type", "")).removesuffix("Fast").removesuffix("Pil")
    crop = _square(config.get("crop_size")) if config.get("do_center_crop") else None
    edges, pixels = _edges(config, kind)
    image_size = crop or _kept(config, kind, pixels)
    interpolation = RESAMPLE.get(config.get("resample", 2))
    if kind in OTHERS or config.get("do_pad") or edges is None:
        return Sizes(image_size, None, f"its {kind or 'processor'} resizes pictures in an unsupported way{INSTEAD}")
    if interpolation is None:
        return Sizes(image_size, None, f"its processor resizes with resample {config['resample']}{INSTEAD}")
    if edges == "keep":
        return Sizes(image_size, Resize("keep", floor=True) if crop else None)
    whole = edges == "shortest" and image_size == pixels and crop is None
    note = "its processor keeps the aspect ratio of images; bdclean crops their centre" if whole else None
    return Sizes(image_size, Resize(edges, pixels, interpolation, floor=True), note)


def of_timm(config: Mapping[str, Any]) -> Sizes:
    """Read a `pretrained_cfg` of timm.

    Raises:
        UnknownPreparationError: If a size is not a number of pixels, or too large.
    """
    size = config.get("input_size")
    if not (isinstance(size, (list, tuple)) and len(size) == 3 and size[1] == size[2]):
        return Sizes()
    image_size = _pixels(size[-1])
    share, mode = config.get("crop_pct") or 0.875, config.get("crop_mode") or "center"
    interpolation = config.get("interpolation") or "bicubic"
    if interpolation not in INTERPOLATIONS:
        return Sizes(image_size, None, f"its interpolation is {str(interpolation)[:40]!r}{INSTEAD}")
    if mode not in ("center", "squash"):
        return Sizes(image_size, None, f"its crop_mode is {str(mode)[:40]!r}{INSTEAD}")
    edges: Edges = "stretch" if mode == "squash" else "shortest"
    return Sizes(image_size, Resize(edges, _pixels(math.floor(image_size / _share(share))), interpolation))


def _edges(config: Mapping[str, Any], kind: str) -> tuple[Edges | None, int]:
    """The edges that are resized, and their length in pixels; None for unsupported ways of resizing."""
    if not config.get("do_resize", True):
        return "keep", 0
    size = config.get("size")
    size = {"height": size, "width": size} if isinstance(size, int) else size
    if not isinstance(size, dict):
        return None, 0
    shortest, height, width = (size.get(name) for name in ("shortest_edge", "height", "width"))
    share = config.get("crop_pct")
    if kind == CONVNEXT and shortest is not None:
        if _pixels(shortest) >= STRETCHED:
            return "stretch", shortest
        return "shortest", _pixels(int(shortest / _share(224 / 256 if share is None else share)))
    if kind == POOLFORMER and share is not None:
        side = _pixels(shortest or height)
        return "shortest", _pixels(int(side / _share(share)))
    if kind == LEVIT and shortest is not None:
        return "shortest", _pixels(int(256 / 224 * _pixels(shortest)))
    if shortest is not None and size.get("longest_edge") is None:
        return "shortest", _pixels(shortest)
    return ("stretch", _pixels(height)) if height is not None and height == width else (None, 0)


def _kept(config: Mapping[str, Any], kind: str, pixels: int) -> int | None:
    """Height and width of the images without a crop, in pixels."""
    size = config.get("size")
    if kind == CONVNEXT and isinstance(size, dict):
        return _square({"height": size.get("shortest_edge"), "width": size.get("shortest_edge")})
    return pixels or None


def _square(size: Any) -> int | None:
    size = {"height": size, "width": size} if isinstance(size, int) else size
    if not isinstance(size, dict) or size.get("height") is None or size.get("height") != size.get("width"):
        return None
    return _pixels(size["height"])


def _pixels(value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST:
        raise UnknownPreparationError(f"{str(value)[:40]!r} is not a size from 1 to {LARGEST} pixels")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.01 <= value <= 100:
        raise UnknownPreparationError(f"crop_pct {str(value)[:40]!r} is not a share")
    return float(value)
