"""Universal changes of images, the same for each, as a trigger is: made by somebody who does not know the trigger."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Change = Callable[[Tensor, Tensor], Tensor]
"""From images (N, C, H, W) and parameters, one for all or one for each of them, (1 or N, ...), to changed images."""

CONTROLS = 4
"""Along each side, control points of a warp."""


def add(images: Tensor, perturbation: Tensor) -> Tensor:
    """Images (N, C, H, W) with a perturbation (1 or N, C, H, W) added. They may leave [0, 1]."""
    return images + perturbation


def warp(images: Tensor, field: Tensor) -> Tensor:
    """Images (N, C, H, W) drawn from elsewhere: a smooth field through control points.

    Args:
        images: Of any range.
        field: (1 or N, 2, k, k): how far to the right and down each control point looks, in shares of the side.
    """
    size = images.shape[-2:]
    shifts = 2 * F.interpolate(field, size, mode="bicubic", align_corners=True)
    rows, columns = (torch.linspace(-1, 1, side, device=images.device, dtype=images.dtype) for side in size)
    places = torch.stack([columns.expand(size), rows[:, None].expand(size)])
    grid = (places + shifts).permute(0, 2, 3, 1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def overlay(images: Tensor, layer: Tensor) -> Tensor:
    """Images (N, C, H, W) under a layer: x (1 - m) + p.

    Args:
        images: In [0, 1].
        layer: (1 or N, 1 + C, H, W): the mask m, and the pattern p.
    """
    return images * (1 - layer[:, :1]) + layer[:, 1:]


def ascend(objective: Callable[[Tensor], Tensor], start: Tensor, size: float, steps: int) -> Tensor:
    """Parameters for which an objective is large, in a ball around 0: normalised gradient steps, projected.

    Args:
        objective: From parameters like `start` to a number, a sum over the P of them.
        start: (P, ...), P searches at once.
        size: Radius of the ball, Euclidean, of each.
        steps: How many; together they are as long as the ball is wide.
    """
    parameters = start
    for _ in range(steps):
        parameters = parameters.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(parameters), parameters)
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (start.ndim - 1))
        parameters = (parameters.detach() + 2 * size / steps * gradient / length).renorm(2, 0, size)
    return parameters.detach()


def draw_layers(count: int, size: int) -> Tensor:
    """Random layers for `overlay`: patches, waves and blended pictures, as often each.

    Args:
        count: How many.
        size: Height and width, in pixels.

    Returns:
        (count, 4, H, W) masks and patterns, on the CPU. From torch's global generator.
    """
    kinds = (_patches, _waves, _blends)
    parts = torch.arange(count).tensor_split(len(kinds))
    return torch.cat([kind(len(part), size) for kind, part in zip(kinds, parts, strict=True)])


def _uniform(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1)


def _patches(count: int, size: int) -> Tensor:
    """Squares of a 16th to a 5th of the side, anywhere: of one colour, of random pixels, of black and white ones."""
    side = (_uniform(count, 1 / 16, 1 / 5) * size).round().clamp(min=1)
    top, left = (((size - side + 1) * torch.rand(count, 1, 1, 1)).floor() for _ in range(2))
    rows, columns = torch.arange(size).view(1, 1, -1, 1), torch.arange(size).view(1, 1, 1, -1)
    inside = ((rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)).float()
    # Pixels of a trigger that is drawn for 32 pixels are larger on larger images.
    cells = min(32, size)
    noise = F.interpolate(torch.rand(count, 3, cells, cells), size, mode="nearest")
    kind = torch.rand(count, 1, 1, 1)
    plain = torch.rand(count, 3, 1, 1).round().expand_as(noise)
    black_and_white = noise[:, :1].round().expand_as(noise)
    pattern = torch.where(kind < 1 / 3, noise, torch.where(kind < 2 / 3, plain, black_and_white))
    return torch.cat([inside, inside * pattern], 1)


def _waves(count: int, size: int) -> Tensor:
    """Sinusoids of 10 to 30 grey levels in any direction, half of them along an axis, up to 16 periods."""
    angle = _uniform(count, 0, math.pi)
    angle = torch.where(torch.rand_like(angle) < 0.5, (angle / math.pi).round() * math.pi / 2, angle)
    place = torch.arange(size) / size
    along = angle.cos() * place.view(1, 1, 1, -1) + angle.sin() * place.view(1, 1, -1, 1)
    wave = (2 * math.pi * (_uniform(count, 0.5, min(16, size / 2)) * along + torch.rand(count, 1, 1, 1))).sin()
    colour = torch.where(
        torch.rand(count, 1, 1, 1) < 0.5, torch.ones(3, 1, 1), torch.randn(count, 3, 1, 1).clamp(-1, 1)
    )
    return torch.cat([torch.zeros_like(wave), _uniform(count, 10, 30) / 255 * colour * wave], 1)


def _blends(count: int, size: int) -> Tensor:
    """Random colours in 2 to 32 cells a side, sharp or smooth, blended in with 5 to 20 %."""
    pictures = []
    for number in range(count):
        cells = min(size, (2, 4, 8, 16, 32)[number % 5])
        mode = "nearest" if number % 2 else "bilinear"
        pictures.append(F.interpolate(torch.rand(1, 3, cells, cells), size, mode=mode))
    mask = _uniform(count, 0.05, 0.2).expand(count, 1, size, size)
    return torch.cat([mask, mask * torch.cat(pictures)], 1)
