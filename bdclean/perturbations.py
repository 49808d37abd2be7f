"""Universal changes of images, the same for each, as a trigger is: made by somebody who does not know the trigger."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Change = Callable[[Tensor, Tensor], Tensor]
"""From images (N, C, H, W) and parameters, one for all or one for each of them, (1 or N, ...), to changed images."""

Project = Callable[[Tensor, float], Tensor]
"""From parameters (P, ...) of changes to the nearest of a bounded size."""

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


def lay(patch: Tensor, corners: Tensor, size: torch.Size) -> Tensor:
    """Layers for `overlay` that are empty but for a patch.

    Args:
        patch: (1 or N, C, k, k), its colours.
        corners: (N, 2), the row and the column at which it begins.
        size: Height and width of the layers; the patch fits.

    Returns:
        (N, 1 + C, height, width).
    """
    height, width = size
    stamp = torch.cat([torch.ones_like(patch[:, :1]), patch], 1)
    first = F.pad(stamp, (0, width - patch.shape[-1], 0, height - patch.shape[-2])).flatten(2)
    # Shifted from the first corner; what comes round is empty.
    rows = (torch.arange(height, device=corners.device) - corners[:, :1]) % height
    columns = (torch.arange(width, device=corners.device) - corners[:, 1:]) % width
    places = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None]
    moved = first.expand(len(corners), -1, -1).gather(2, places.expand(-1, first.shape[1], -1))
    return moved.view(*moved.shape[:2], height, width)


def paste(images: Tensor, patch: Tensor) -> Tensor:
    """Images (N, C, H, W) with a patch (1 or N, C, k, k) in the place of their pixels, each at a random place."""
    free = torch.tensor(images.shape[-2:], device=images.device) - patch.shape[-1] + 1
    corners = (torch.rand(len(images), 2, device=images.device) * free).long()
    return overlay(images, lay(patch, corners, images.shape[-2:]))


def boxes(corners: Tensor, sides: Tensor, colours: Tensor, size: torch.Size) -> Tensor:
    """Squares of one colour as layers for `overlay`; what lies outside is cut off.

    Args:
        corners: (P, 2), the row and the column at which each begins.
        sides: (P,), in pixels.
        colours: (P, C).
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
    """A bound that is given for images of 32 pixels, for those of another side: it grows with that."""
    return size * side / 32


def ball(parameters: Tensor, size: float) -> Tensor:
    """The nearest parameters (P, ...), each of a Euclidean norm of at most `size`."""
    return parameters.renorm(2, 0, size)


def few_pixels(layers: Tensor, side: float) -> Tensor:
    """Layers for `overlay`, (P, 1 + C, H, W), whose masks cover as much as a square.

    A mask is what it is, or where the pattern is brighter as much as that; then the nearest in [0, 1] that sums up to
    at most `side` squared. The pattern is cut off at 0 and the mask.
    """
    patterns = layers[:, 1:]
    masks = torch.maximum(layers[:, :1], patterns.amax(1, keepdim=True))
    # What is taken off all pixels: the sum falls with it, so halving finds it.
    low = torch.zeros(len(masks), 1, 1, 1, device=layers.device)
    high = masks.amax((1, 2, 3), keepdim=True).clamp(min=0)
    for _ in range(24):
        middle = (low + high) / 2
        more = (masks - middle).clamp(0, 1).sum((1, 2, 3), keepdim=True) > side**2
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    fits = masks.clamp(0, 1).sum((1, 2, 3), keepdim=True) <= side**2
    masks = (masks - torch.where(fits, 0, high)).clamp(0, 1)
    return torch.cat([masks, patterns.clamp(min=0).minimum(masks)], 1)


def shift_radius(shift: float) -> float:
    """The Euclidean norm of a field for `warp` that shifts by so much, root mean square, in pixels of 32."""
    return shift / 32 * (2 * CONTROLS**2) ** 0.5


def uphill(value: Tensor, parameters: Tensor, length: float) -> Tensor:
    """Steps of a length along the gradient of a value with respect to parameters (P, ...), of each of them.

    Where the gradient is not finite there is no step: searches stay finite whatever a network does, as they must, since
    the backward pass of `grid_sample` writes out of bounds for a field of nan.
    """
    (gradient,) = torch.autograd.grad(value, parameters)
    gradient = gradient.nan_to_num(0, 0, 0)
    norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (parameters.ndim - 1))
    return length * gradient / norm


def ascend(
    objective: Callable[[Tensor], Tensor], start: Tensor, size: float, steps: int, project: Project = ball
) -> Tensor:
    """Parameters for which an objective is large, of a bounded size: normalised gradient steps, projected.

    Args:
        objective: From parameters like `start` to a number, a sum over the P of them.
        start: (P, ...), P searches at once.
        size: Of each, as `project` takes it.
        steps: How many; together they are as long as a ball of this radius is wide.
        project: Takes parameters to those that are allowed.
    """
    parameters = start
    for _ in range(steps):
        parameters = parameters.detach().requires_grad_()
        step = uphill(objective(parameters), parameters, 2 * size / steps)
        parameters = project(parameters.detach() + step, size)
    return parameters.detach()
