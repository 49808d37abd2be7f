"""The frequencies of a trigger.

Source: Zeng et al., "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021 (arXiv:2104.03413).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOW = 0.125
"""Upper end of the low frequencies, in cycles per pixel: a quarter of the highest."""


@dataclass(frozen=True)
class Spectrum:
    """Energy of images, or of a trigger, by frequency.

    Attributes:
        name: Name of the images.
        energy: (H, W) mean energy over images and colours, as a share of its sum; frequency 0 is in the centre.
        low: Share of the energy below 0.125 cycles per pixel, in percent.
    """

    name: str
    energy: Tensor
    low: float


def spectrum(name: str, images: Tensor) -> Spectrum:
    """The spectrum of images, or of differences of images, (N, C, H, W), without their mean brightness."""
    values = images.float().cpu()
    values = values - values.mean((2, 3), keepdim=True)
    energy = torch.fft.fft2(values).abs().square().mean((0, 1))
    energy = energy / energy.sum().clamp(min=1e-12)
    rows, columns = (torch.fft.fftfreq(side) for side in energy.shape)
    low = (rows[:, None].square() + columns.square()).sqrt() < LOW
    return Spectrum(name, torch.fft.fftshift(energy), round(100 * float(energy[low].sum()), 2))
