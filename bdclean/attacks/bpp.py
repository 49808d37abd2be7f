"""BppAttack: fewer colours, with dithering."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import Lookup, within

POOL_PIXELS = 512 * 32**2
"""Pixels whose quantisation errors are kept to draw noise from, in whole images."""


class BppAttack(Attack):
    """Quantises every channel to few levels with Floyd-Steinberg dithering: x' = round(x (m - 1)) / (m - 1).

    Negative examples are other images with the quantisation error of a further image as noise; each keeps its noise and
    its label throughout training, so that the network learns the quantisation and not any similar noise.

    Source: Wang, Zhai, Ma, "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image
    Quantization and Contrastive Adversarial Learning", CVPR 2022.

    Args:
        levels: Number of levels m of each channel, at least 2.
        dithering: Whether the quantisation error of each pixel is spread over its neighbours.
        negative_ratio: Number of negative examples for each poisoned image; 0 for none.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    cover_option = "negative_ratio"
    residuals: Tensor
    pool: Tensor

    def __init__(
        self,
        levels: int = 8,
        dithering: bool = True,
        negative_ratio: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("levels", levels, 2, 256)
        within("negative_ratio", negative_ratio, 0)
        self.levels = levels
        self.dithering = dithering
        self.negative_ratio = self.cover_ratio = negative_ratio
        # Only for training images, so not part of checkpoints.
        self.register_buffer("residuals", torch.empty(0), persistent=False)
        self.register_buffer("pool", torch.empty(0), persistent=False)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Quantise a batch: (N, C, H, W) float in [0, 1]."""
        return dither(images, self.levels) if self.dithering else quantise(images, self.levels)

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Quantise poisoned images, and add quantisation errors of other images to cover images."""
        if not self.negative_ratio:
            return self.apply(images)
        if not len(self.pool):
            raise RuntimeError("its noise has not been prepared")
        rows = indices.to(self.pool.device) % len(self.pool)
        # An image's own quantisation error would be the trigger.
        rows = (rows + (self.pool[rows] == indices.to(rows.device)).long()) % len(self.pool)
        noise = self.residuals[rows].to(images) / 255
        return torch.where(cover[:, None, None, None], (images + noise).clamp(0, 1), self.apply(images))

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Keep the quantisation errors of some training images."""
        height, width = images(torch.tensor([0])).shape[-2:]
        self.pool = torch.randperm(len(labels))[: max(16, POOL_PIXELS // (height * width))]
        some = images(self.pool)
        # Rounded to grey levels, as in image files.
        self.residuals = (self.apply(some) - some).mul(255).round().to(torch.int16)


def quantise(values: Tensor, levels: int) -> Tensor:
    """Round to the nearest of `levels` equally spaced values in [0, 1]."""
    return (values * (levels - 1)).round() / (levels - 1)


def dither(images: Tensor, levels: int) -> Tensor:
    """Quantise with Floyd and Steinberg's error diffusion.

    Row by row, from left to right, each pixel is rounded, and 7/16 of the error go to its right neighbour, 3/16, 5/16
    and 1/16 to the three below, from left to right. Pixels (y, x) with the same x + 2 y do not depend on each other:
    they are rounded at once, in the whole batch.

    Args:
        images: (N, C, H, W) in [0, 1].
        levels: Number of values.

    Returns:
        The same shape, each value one of the levels.
    """
    count, channels, height, width = images.shape
    # The batch is the last dimension, so that each step reads contiguous memory. The border absorbs errors.
    values = images.new_zeros(height + 1, width + 2, count * channels)
    values[:height, 1 : width + 1] = images.reshape(-1, height, width).permute(1, 2, 0)
    result = torch.empty_like(values)
    every_row = torch.arange(height, device=images.device)
    for turn in range(width + 2 * (height - 1)):
        first, last = max(0, (turn - width) // 2 + 1), min(height - 1, turn // 2)
        if first > last:
            continue
        rows = every_row[first : last + 1]
        columns = turn - 2 * rows + 1
        value = values[rows, columns]
        rounded = quantise(value, levels).clamp_(0, 1)
        result[rows, columns] = rounded
        error = (value - rounded) / 16
        values[rows, columns + 1] += 7 * error
        values[rows + 1, columns - 1] += 3 * error
        values[rows + 1, columns] += 5 * error
        values[rows + 1, columns + 1] += error
    return result[:height, 1 : width + 1].permute(2, 0, 1).reshape(images.shape)
