"""The embedded data set: ten shapes, drawn by the program from a seed.

It needs no download, its images differ in position, size, colour, rotation and background, and a linear model cannot
solve it. A small network learns it in a minute on two CPU cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SIDE = 32
"""Height and width of an image, in pixels."""


def _polygon(x: Tensor, y: Tensor, corners: int, inradius: float) -> Tensor:
    angles = [2 * math.pi * k / corners for k in range(corners)]
    return inradius - torch.stack([x * math.cos(a) + y * math.sin(a) for a in angles]).amax(0)


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.minimum(half_width - x.abs(), half_height - y.abs())


def _disk(x: Tensor, y: Tensor) -> Tensor:
    return 0.85 - torch.hypot(x, y)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return 0.22 - (torch.hypot(x, y) - 0.75).abs()


def _half_disk(x: Tensor, y: Tensor) -> Tensor:
    y = y - 0.45
    return torch.minimum(1 - torch.hypot(x, y), -y)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.75, 0.75)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _polygon(x, y, 3, 0.5)


def _star(x: Tensor, y: Tensor) -> Tensor:
    # One spike, repeated five times by folding the angle; its edge is the line from the tip to the inner corner.
    sector = 2 * math.pi / 5
    angle = (torch.remainder(torch.atan2(y, x), sector) - sector / 2).abs()
    radius = torch.hypot(x, y)
    inner = 0.42
    tip_x, tip_y = math.cos(sector / 2), math.sin(sector / 2)
    edge_x, edge_y = tip_x - inner, tip_y
    length = math.hypot(edge_x, edge_y)
    return -((radius * angle.cos() - inner) * edge_y - radius * angle.sin() * edge_x) / length


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_box(x, y, 0.28, 1.0), _box(x, y, 1.0, 0.28))


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(0.95 - torch.hypot(x, y), torch.hypot(x - 0.5, y) - 0.72)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    # A square standing on its corner, and a disk on the middle of each of its upper edges.
    half, y = 0.55, y + 0.15
    s = math.sqrt(0.5)
    lobes = half - torch.hypot(x.abs() - half * s, y - half * s)
    return torch.maximum(_box((x + y) * s, (x - y) * s, half, half), lobes)


def _corner(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_box(x + 0.5, y, 0.27, 0.8), _box(x, y - 0.53, 0.77, 0.27))


CLASSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disk": _disk,
    "ring": _ring,
    "half disk": _half_disk,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "corner": _corner,
}
"""Signed distance of each class, by name: positive inside, in units of the shape's radius, approximate."""


def _texture(count: int, generator: torch.Generator) -> Tensor:
    """Random fields with detail at three scales, (N, 3, 32, 32), of about zero mean."""
    texture = torch.randn(count, 3, SIDE, SIDE, generator=generator).mul_(0.04)
    for cells, strength in ((2, 0.15), (6, 0.08)):
        # Linear interpolation as a matrix product is many times faster than resizing an image.
        position = torch.linspace(0, cells - 1, SIDE)[:, None]
        spread = (1 - (position - torch.arange(cells)).abs()).clamp(min=0)
        noise = strength * torch.randn(count, 3, cells, cells, generator=generator)
        texture += spread @ noise @ spread.T
    return texture


def draw_shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw labelled images of shapes, each class equally often.

    Args:
        count: Number of images.
        seed: Seed; the same seed and count give the same images.

    Returns:
        Images, (N, 32, 32, 3) uint8, and their classes, (N,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % len(CLASSES))[torch.randperm(count, generator=generator)]
    # In chunks that fit the CPU cache.
    return torch.cat([_draw(piece, generator) for piece in torch.split(labels, 500)]), labels


def _draw(labels: Tensor, generator: torch.Generator) -> Tensor:
    count = len(labels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    radius = uniform(7.0, 12.0, count, 1, 1)
    centre_x, centre_y = ((SIDE - 1) / 2 + uniform(-1, 1, count, 1, 1) * (14.5 - radius) for _ in range(2))
    turn = uniform(0, 2 * math.pi, count, 1, 1)
    grid = torch.arange(SIDE, dtype=torch.float)
    x, y = (grid[None, None, :] - centre_x) / radius, (grid[None, :, None] - centre_y) / radius
    x, y = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()

    inside = torch.empty(count, SIDE, SIDE)
    for label, shape in enumerate(CLASSES.values()):
        members = labels == label
        inside[members] = shape(x[members], y[members])
    coverage = (0.5 + inside * radius).clamp(0, 1)[:, None]

    background = uniform(0.15, 0.85, count, 3, 1, 1)
    # The shape's colour differs from the background by 0.25 to 0.55 in every channel, up or down.
    shift = uniform(0.25, 0.55, count, 3, 1, 1) * uniform(-1, 1, count, 3, 1, 1).sign()
    colour = background + shift
    colour = torch.where((colour < 0) | (colour > 1), background - shift, colour)
    # In place, as allocating memory takes longer than the arithmetic.
    images = (coverage * (colour - background)).add_(background).add_(_texture(count, generator))
    return images.clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
