"""The network that generates learned triggers, and the training of one that hides something in images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

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


def hide(encoder: nn.Module, images: Tensor, planes: Tensor, strength: float) -> Tensor:
    """Add the change that an encoder makes of images and of what it hides in them, clipped to [0, 1].

    Args:
        encoder: Maps (N, 3 + C, H, W) to (N, 3, H, W).
        images: (N, 3, H, W) in [0, 1].
        planes: (N, C, H, W), what is hidden.
        strength: Largest change of a pixel, in grey levels of 255.
    """
    change = encoder(torch.cat([images, planes], 1)).tanh()
    return (images + strength / 255 * change).clamp(0, 1)


def train_encoder(
    encoder: nn.Module,
    decoder: nn.Module,
    batches: Iterable[Tensor],
    lr: float,
    image_weight: float,
    read: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Train an encoder that hides something in images, with a decoder that finds it: Adam.

    Args:
        encoder: The encoder, whose weights need no gradient before and after the training.
        decoder: The decoder.
        batches: Batches of images, (N, 3, H, W) in [0, 1].
        lr: Learning rate of both.
        image_weight: Weight of the mean square by which the encoder changes images.
        read: For a batch, the images in which something is hidden, and the loss of the decoder on them.
    """
    encoder.requires_grad_(True)
    decoder.to(next(encoder.parameters()).device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr)
    for images in batches:
        hidden, found = read(images)
        loss = image_weight * F.mse_loss(hidden, images) + found
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    encoder.requires_grad_(False)


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(min(8, outputs), outputs), nn.ReLU())
