"""Random crops and flips of whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crops and flips.

    Attributes:
        padding: Zero padding on each side before the crop, in pixels.
        flip: Whether to mirror each image with probability 1/2.
    """

    padding: int
    flip: bool

    def __call__(self, pixels: Tensor) -> Tensor:
        """Crop and flip images, (N, H, W, C), of any type; uint8 takes a third of the time of float."""
        return random_crop_flip(pixels, self.padding, self.flip)


def random_crop_flip(pixels: Tensor, padding: int, flip: bool) -> Tensor:
    """Pad with zeros, crop randomly to the old size, and flip horizontally at random; a whole batch at once.

    Args:
        pixels: (N, H, W, C), any type, on any device.
        padding: Padding on each side, in pixels.
        flip: Whether to mirror each image with probability 1/2.
    """
    count, height, width, channels = pixels.shape
    device, free = pixels.device, 2 * padding
    rows = torch.arange(height, device=device) + torch.randint(free + 1, (count, 1), device=device)
    columns = torch.randint(free + 1, (count, 1), device=device)
    images = torch.arange(count, device=device)[:, None]
    padded = F.pad(pixels, (0, 0, padding, padding, padding, padding))
    if flip:
        mirrored = torch.rand(count, 1, device=device) < 0.5
        padded = torch.cat([padded, padded.flip(2)])
        images, columns = images + count * mirrored, torch.where(mirrored, free - columns, columns)
    # Each row of the result is contiguous in the padded images: copying rows is much faster than copying pixels.
    _, high, wide, _ = padded.shape
    begins = (images * high + rows) * wide + columns
    if pixels.requires_grad:
        # The gradient of the overlapping view below would take many times the memory of the images.
        places = begins[..., None] + torch.arange(width, device=device)
        return padded.reshape(-1, channels).index_select(0, places.flatten()).view(pixels.shape)
    pieces = padded.contiguous().as_strided((len(padded) * high * wide - width + 1, width * channels), (channels, 1))
    return pieces.index_select(0, begins.flatten()).view(pixels.shape)
