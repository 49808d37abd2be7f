"""BadNets: a patch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.attacks.base import Attack
from bdclean.attacks.common import scaled, within
from bdclean.attacks.pictures import as_channels, read_picture
from bdclean.errors import InputError

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right", "center"]
PATTERNS = ("checkerboard", "white", "black", "random")


class BadNets(Attack):
    """Replaces a patch of the image, x' = (1 - a) x + a p with pattern p and opacity a, or adds to it, x' = x + a p.

    Source: Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
    IEEE Access 2019.

    Args:
        trigger: Pattern of the patch: `checkerboard` (black and white), `white`, `black`, `random`, or an image file,
            whose alpha channel (if it has one) is the opacity.
        size: Side of the patch in pixels; by default 3 for a pattern on images of up to 32 pixels, in proportion for
            larger ones, and for an image file its own size.
        position: A corner or `center`, or row and column of the patch's first pixel.
        margin: Distance between the patch and the edges of the image in pixels, if the position is a corner.
        combine: `replace` replaces the pixels by the patch; `add` adds the patch and clips the result at 1.
        **options: Options of Attack.
    """

    parts: ClassVar[tuple[str, ...]] = ("patch",)
    patch: Tensor

    def __init__(
        self,
        trigger: str = "checkerboard",
        size: int | None = None,
        position: Corner | tuple[int, int] = "bottom-right",
        margin: int = 0,
        combine: Literal["replace", "add"] = "replace",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if size is not None:
            within("size", size, 1)
        within("margin", margin, 0)
        self.trigger = trigger
        self.size = size
        self.position = position
        self.margin = margin
        self.combine: Literal["replace", "add"] = combine

    def build(self, image_size: int) -> None:
        """Draw the patch, or read it from its file.

        Raises:
            InputError: If the trigger's file cannot be read, or the patch is larger than the image.
        """
        self._check_size(image_size)
        self.register_buffer("patch", self._draw(image_size))

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the patch to a batch: (N, C, H, W) float in [0, 1].

        Raises:
            InputError: If the patch does not fit into the image.
        """
        self._check_size(min(images.shape[-2:]))
        patch = self.patch.to(images)
        height, width = patch.shape[1:]
        top, left = self._corner(images.shape[-2], images.shape[-1])
        colour, opacity = as_channels(patch[:3], images), patch[3:]
        region = (..., slice(top, top + height), slice(left, left + width))
        triggered = images.clone()
        kept = images[region] * (1 - opacity) if self.combine == "replace" else images[region]
        triggered[region] = (kept + colour * opacity).clamp(max=1)
        return triggered

    def _check_size(self, image_size: int) -> None:
        if self.size is not None and self.size > image_size:
            raise InputError("data.attack.size", self.size, f"larger than images of {image_size} pixels")

    def _draw(self, image_size: int) -> Tensor:
        """The patch as (4, h, w): red, green, blue, opacity, each in [0, 1]."""
        if self.trigger not in PATTERNS:
            return read_picture(self.trigger, PATTERNS, None if self.size is None else (self.size, self.size))
        side = self.size or 3
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        grey = {"checkerboard": (row + column) % 2, "white": torch.ones(side, side), "black": torch.zeros(side, side)}
        if self.trigger == "random":
            colour = torch.rand(3, side, side, generator=torch.Generator().manual_seed(self.seed))
        else:
            colour = grey[self.trigger].float().expand(3, -1, -1)
        patch = torch.cat([colour, torch.ones(1, side, side)])
        return patch if self.size else F.interpolate(patch[None], [scaled(3, image_size)] * 2)[0]

    def _corner(self, image_height: int, image_width: int) -> tuple[int, int]:
        """Row and column of the patch's first pixel."""
        free_height, free_width = image_height - self.patch.shape[1], image_width - self.patch.shape[2]
        if self.position == "center":
            top, left = free_height // 2, free_width // 2
        elif isinstance(self.position, str):
            top = self.margin if self.position.startswith("top") else free_height - self.margin
            left = self.margin if self.position.endswith("left") else free_width - self.margin
        else:
            top, left = self.position
        if not (0 <= top <= free_height and 0 <= left <= free_width):
            raise InputError(
                "data.attack.position",
                self.position,
                f"a patch of {self.patch.shape[1]}x{self.patch.shape[2]} "
                f"does not fit there into an image of {image_height}x{image_width}",
            )
        return top, left
