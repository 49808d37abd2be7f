"""Universal perturbations of images, by which a defender approximates an unknown trigger."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Change = Callable[[Tensor, Tensor], Tensor]
"""Applies parameters (1 or N, ...), one for all images or one for each, to images (N, C, H, W)."""

Project = Callable[[Tensor, float], Tensor]
"""Projects parameters (P, ...) to the nearest parameters of a bounded size."""

CONTROLS = 4
"""Control points of a warp along each side."""


def add(images: Tensor, perturbation: Tensor) -> Tensor:
    """Add a perturbation (1 or N, C, H, W) to images (N, C, H, W). The result may leave [0, 1]."""
    return images + perturbation


def warp(images: Tensor, field: Tensor) -> Tensor:
    """Warp images (N, C, H, W) by a smooth field that control points define.

    Args:
        images: Images of any range.
        field: (1 or N, 2, k, k): shift to the right and down at each control point, in shares of the side.
    """
    size = images.shape[-2:]
    shifts = 2 * F.interpolate(field, size, mode="bicubic", align_corners=True)
    rows, columns = (torch.linspace(-1, 1, side, device=images.device, dtype=images.dtype) for side in size)
    places = torch.stack([columns.expand(size), rows[:, None].expand(size)])
    grid = (places + shifts).permute(0, 2, 3, 1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def overlay(images: Tensor, layer: Tensor) -> Tensor:
    """Images (N, C, H, W) covered by a layer: x (1 - m) + p.

    Args:
        images: Images in [0, 1].
        layer: (1 or N, 1 + C, H, W): the mask m and the pattern p.
    """
    return images * (1 - layer[:, :1]) + layer[:, 1:]


def lay(patch: Tensor, corners: Tensor, size: torch.Size) -> Tensor:
    """Layers for `overlay` that are empty except for a patch.

    Args:
        patch: (1 or N, C, k, k): the colours of the patch.
        corners: (N, 2): row and column of its top left corner.
        size: Height and width of the layers, at least those of the patch.

    Returns:
        (N, 1 + C, height, width).
    """
    height, width = size
    stamp = torch.cat([torch.ones_like(patch[:, :1]), patch], 1)
    first = F.pad(stamp, (0, width - patch.shape[-1], 0, height - patch.shape[-2])).flatten(2)
    # Rolled from the top left corner; the part that wraps around is empty.
    rows = (torch.arange(height, device=corners.device) - corners[:, :1]) % height
    columns = (torch.arange(width, device=corners.device) - corners[:, 1:]) % width
    places = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None]
    moved = first.expand(len(corners), -1, -1).gather(2, places.expand(-1, first.shape[1], -1))
    return moved.view(*moved.shape[:2], height, width)


def paste(images: Tensor, patch: Tensor) -> Tensor:
    """Replace pixels of images (N, C, H, W) by a patch (1 or N, C, k, k), at a random place in each image."""
    free = torch.tensor(images.shape[-2:], device=images.device) - patch.shape[-1] + 1
    corners = (torch.rand(len(images), 2, device=images.device) * free).long()
    return overlay(images, lay(patch, corners, images.shape[-2:]))


def boxes(corners: Tensor, sides: Tensor, colours: Tensor, size: torch.Size) -> Tensor:
    """Squares of one colour as layers for `overlay`, clipped at the borders of the image.

    Args:
        corners: (P, 2): row and column of the top left corner of each square.
        sides: (P,): side of each square, in pixels.
        colours: (P, C): colour of each square.
        size: Height and width of the layers.

    Returns:
        (P, 1 + C, height, width).
    """

    def within(length: int, first: Tensor) -> Tensor:
        behind = torch.arange(length, device=first.device) - first[:, None]
        return (behind >= 0) & (behind < sides[:, None])

    rows, columns = (within(length, first) for length, first in zip(size, corners.unbind(1), strict=True))
    masks = (rows[:, :, None] & columns[:, None])[:, None].to(colours)
    return torch.cat([masks, masks * colours[:, :, None, None]], 1)


def radius(size: float, side: int) -> float:
    """Scale a bound for images of 32 pixels to images of another side, in proportion to the side."""
    return size * side / 32


def ball(parameters: Tensor, size: float) -> Tensor:
    """Project parameters (P, ...) to a Euclidean norm of at most `size` each."""
    return parameters.renorm(2, 0, size)


def few_pixels(layers: Tensor, side: float) -> Tensor:
    """Project layers for `overlay`, (P, 1 + C, H, W), to masks that cover at most the area of a square.

    Each mask is first raised to the pattern where the pattern is brighter, then projected to the nearest mask in [0, 1]
    whose sum is at most `side` squared. The pattern is clipped to between 0 and the mask.
    """
    patterns = layers[:, 1:]
    masks = torch.maximum(layers[:, :1], patterns.amax(1, keepdim=True))
    # The projection subtracts one number from all pixels. The sum falls with this number, so bisection finds it.
    low = torch.zeros(len(masks), 1, 1, 1, device=layers.device)
    high = masks.amax((1, 2, 3), keepdim=True).clamp(min=0)
    for _ in range(24):
        middle = (low + high) / 2
        too_large = (masks - middle).clamp(0, 1).sum((1, 2, 3), keepdim=True) > side**2
        low, high = torch.where(too_large, middle, low), torch.where(too_large, high, middle)
    fits = masks.clamp(0, 1).sum((1, 2, 3), keepdim=True) <= side**2
    masks = (masks - torch.where(fits, 0, high)).clamp(0, 1)
    return torch.cat([masks, patterns.clamp(min=0).minimum(masks)], 1)


def shift_radius(shift: float) -> float:
    """The Euclidean norm of a field for `warp` with a root mean square shift of `shift` pixels, for images of 32."""
    return shift / 32 * (2 * CONTROLS**2) ** 0.5


def uphill(value: Tensor, parameters: Tensor, length: float) -> Tensor:
    """Steps of a given length along the gradient of a value with respect to each of the parameters (P, ...).

    Gradients that are not finite count as 0, so that parameters stay finite: the backward pass of `grid_sample` writes
    out of bounds for a field of nan.
    """
    (gradient,) = torch.autograd.grad(value, parameters)
    gradient = gradient.nan_to_num(0, 0, 0)
    norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (parameters.ndim - 1))
    return length * gradient / norm


def ascend(
    objective: Callable[[Tensor], Tensor], start: Tensor, size: float, steps: int, project: Project = ball
) -> Tensor:
    """Maximise an objective over parameters of a bounded size, by normalised gradient steps with projection.

    Args:
        objective: Maps parameters like `start` to a scalar, the sum of the P objectives.
        start: (P, ...): the starting points of P searches.
        size: Bound that is passed to `project`.
        steps: Number of steps; the total length of all steps is twice `size`.
        project: Projection to the allowed parameters.
    """
    parameters = start
    for _ in range(steps):
        parameters = parameters.detach().requires_grad_()
        step = uphill(objective(parameters), parameters, 2 * size / steps)
        parameters = project(parameters.detach() + step, size)
    return parameters.detach()
