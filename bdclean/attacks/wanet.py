"""WaNet: a smooth warp of the image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.attacks.base import Attack
from bdclean.attacks.common import PAPER_SIZE, within


class WaNet(Attack):
    """Warps the image along a smooth random field: x'(p) = x(r (p + s F(p))), F fixed and smooth, with mean |F| = 1.

    F is a grid of k x k random vectors, uniform in [-1, 1], divided by the mean of their absolute values and enlarged
    to the size of the image bicubically. In noise mode other images are warped by F plus random noise and keep their
    labels, so that the network has to learn this warp and not any warp.

    Source: Nguyen, Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021.

    Args:
        s: Strength of the warp: the mean shift is s / 2 pixels for images of 32 pixels, and in proportion for others.
        k: Side of the grid of random vectors.
        grid_rescale: Factor r of all positions, which are in [-1, 1].
        cross_ratio: Number of noise-mode images for each poisoned image; 0 for none.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one", "all-to-all")
    poisons_each_step = True
    cover_option = "cross_ratio"
    field: Tensor

    def __init__(
        self,
        s: float = 0.5,
        k: int = 4,
        grid_rescale: float = 1.0,
        cross_ratio: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("s", s, 0, 1000, above=True)
        within("k", k, 2, 1024)
        within("grid_rescale", grid_rescale, 0, 1000, above=True)
        within("cross_ratio", cross_ratio, 0)
        self.s = s
        self.k = k
        self.grid_rescale = grid_rescale
        self.cross_ratio = self.cover_ratio = cross_ratio
        field = 2 * torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(self.seed)) - 1
        self.register_buffer("field", field / field.abs().mean())

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Warp a batch: (N, C, H, W) float in [0, 1]."""
        grid = self.grid(images)
        return _sample(images, grid.expand(len(images), -1, -1, -1))

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Warp a batch, and cover images with additional new noise of up to half a pixel, for images of 32 pixels."""
        grid = self.grid(images).expand(len(images), -1, -1, -1)
        noise = (2 * torch.rand_like(grid) - 1) / PAPER_SIZE
        return _sample(images, torch.where(cover[:, None, None, None], (grid + noise).clamp(-1, 1), grid))

    def grid(self, images: Tensor) -> Tensor:
        """The source of each pixel: (1, H, W, 2) columns and rows, from -1 to 1 between the outermost pixels."""
        height, width = images.shape[-2:]
        # In the images' precision; bicubic, as in the paper.
        warp = F.interpolate(self.field.to(images), (height, width), mode="bicubic", align_corners=True)
        rows = torch.linspace(-1, 1, height, device=images.device, dtype=images.dtype)
        columns = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype)
        identity = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], -1)
        return ((identity + self.s / PAPER_SIZE * warp.permute(0, 2, 3, 1)) * self.grid_rescale).clamp(-1, 1)


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    # Rounding can exceed [0, 1] slightly.
    return F.grid_sample(images, grid, align_corners=True).clamp(0, 1)
