"""Images that a caller passes in memory: tensors and loaders of any kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bdclean.errors import InputError
from bdclean.networks import Moments


def collect(batches: Iterable[Any], count: int) -> Tensor:
    """The first images of a loader whose batches are images, or tuples and lists that begin with images."""
    found: list[Tensor] = []
    for batch in batches:
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(images, Tensor):
            raise InputError("images", None, f"gives {type(images).__name__}, not tensors (N, C, H, W)")
        if found and images.shape[1:] != found[0].shape[1:]:
            raise InputError(
                "images",
                None,
                f"of different sizes, {tuple(images.shape[1:])} and {tuple(found[0].shape[1:])}",
            )
        found.append(images.detach().cpu())
        if sum(map(len, found)) >= count:
            break
    if not found:
        raise InputError("images", None, "the DataLoader yields none")
    return torch.cat(found)[:count]


def scaled(pixels: Tensor, mean: Moments, std: Moments) -> tuple[Tensor, Moments, Moments]:
    """Rescale images (N, H, W, C) to [0, 1], and return them with the mean and std that undo the rescaling."""
    if not pixels.is_floating_point():
        return pixels, mean, std
    if not pixels.isfinite().all():
        raise InputError("images", None, "hold nan or inf")
    low, high = pixels.amin((0, 1, 2)).clamp(max=0), pixels.amax((0, 1, 2)).clamp(min=1)
    if mean is None and std is None:
        return (pixels - low) / (high - low), (-low / (high - low)).tolist(), (1 / (high - low)).tolist()
    if low.any() or (high > 1).any():
        reach = f"from {float(low.min()):.4g} to {float(high.max()):.4g}"
        raise InputError("images", None, f"{reach}; with mean and std, images must be in [0, 1]")
    return pixels, mean, std


def as_pixels(images: Tensor) -> Tensor:
    """Check images (N, C, H, W), and permute them to (N, H, W, C)."""
    shaped = images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] and len(images) > 1
    if not shaped or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise InputError(
            "images",
            None,
            f"{images.dtype} {tuple(images.shape)}; needed are float or uint8 (N, 3 or 1, H, H), two or more",
        )
    pixels = images.detach().cpu().permute(0, 2, 3, 1).contiguous()
    return pixels.float() if pixels.is_floating_point() else pixels
