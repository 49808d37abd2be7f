"""The network that generates learned triggers."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Generator(nn.Module):
    """A U-Net from images to maps of the same size: an encoder, a decoder, and skip connections.

    It has group norms instead of batch norms, so that the output does not depend on the batch or the mode.

    Args:
        inputs: Channels of the images.
        outputs: Channels of the maps.
        width: Channels of the first layer; each further layer has twice as many.
        depth: Number of times the size is halved.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.first = _convolution(inputs, width)
        self.down = nn.ModuleList(_convolution(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_convolution(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.last = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W), unbounded."""
        maps = [self.first(images)]
        for layer in self.down:
            maps.append(layer(F.avg_pool2d(maps[-1], 2, ceil_mode=True)))
        found = maps.pop()
        for layer in self.up:
            same = maps.pop()
            found = layer(torch.cat([F.interpolate(found, same.shape[-2:]), same], 1))
        result: Tensor = self.last(found).to(images.dtype)
        return result


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(min(8, outputs), outputs), nn.ReLU())
