"""ReFool: the reflection of another image."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from bdclean.attacks.base import Attack, LabelMode
from bdclean.attacks.common import PAPER_SIZE, Lookup, within
from bdclean.attacks.pictures import as_channels
from bdclean.errors import InputError

GAMMA = 2.2
"""Light is the pixel value to this power."""
BLUR = (0.5, 2.0)
"""Smallest and largest standard deviation of the blur, in pixels of 32."""
SHIFT = (1.0, 3.0)
"""Smallest and largest shift of a ghost in each direction, in pixels of 32."""


class ReFool(Attack):
    """Adds the reflection of another image, as of a window pane: x'^2.2 = (1 - w) x^2.2 + w (k * r)^2.2.

    The kernel k is one of two: a blur, for a reflection that is out of focus, or two pulses at a distance, for the
    ghost that the second surface of a thick pane makes. The reflected images r are training images of other classes
    than the target; each has a kernel and a weight w of its own. Only images of the target class are poisoned, so that
    every label is true. Each training image has one of the reflections, and each test image one that depends on its
    own middle pixel, so that the network learns reflections and not a certain one.

    Source: Liu, Ma, Bailey, Lu, "Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks", ECCV 2020.
    There the reflected images are photographs of another data set, and those that work best are found by training
    repeatedly; here they are drawn at random from the training images. The vignette of a blurred reflection is left
    out, and lengths are for images of 32 pixels.

    Args:
        label_mode: `clean-label`, as in the paper; the other modes poison images of other classes, too.
        poison_rate: Share of the target class's training images that are poisoned, from 0 (a clean network) to 1; in
            `one-to-one` of the source class's, in the other modes of all.
        count: Number of reflected images.
        ghost_fraction: Share of the reflections that are ghosts, from 0 to 1; the others are out of focus.
        weights: Smallest and largest weight w of a reflection, from 0 to 1.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    parts = ("reflections", "shares")
    reflections: Tensor
    shares: Tensor

    def __init__(
        self,
        label_mode: LabelMode = "clean-label",
        poison_rate: float = 0.5,
        count: int = 16,
        ghost_fraction: float = 0.5,
        weights: tuple[float, float] = (0.05, 0.45),
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, **options)
        within("count", count, 1, 1000)
        within("ghost_fraction", ghost_fraction, 0, 1)
        if len(weights) != 2 or not 0 <= weights[0] <= weights[1] <= 1 or weights[1] == 0:
            raise InputError("data.attack.weights", list(weights), "must be two numbers from 0 to 1, the larger last")
        self.count = count
        self.ghost_fraction = ghost_fraction
        self.weights = weights

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add to each image one of the reflections, by the grey level of its middle: (N, C, H, W) float in [0, 1]."""
        middle = images[..., images.shape[-2] // 2, images.shape[-1] // 2]
        return self.reflect(images, (255 * middle).round().long().sum(1) % len(self.shares))

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Add to each image its own reflection, always the same."""
        which = (self.draws(indices, 1)[:, 0] * len(self.shares)).long()
        return self.reflect(images, which.to(images.device))

    def reflect(self, images: Tensor, which: Tensor) -> Tensor:
        """Add reflections, by their numbers (N,), to images (N, C, H, W) in [0, 1]."""
        layers = F.interpolate(self.reflections.to(images), images.shape[-2:], mode="bilinear", antialias=True)
        colours = torch.stack([as_channels(layer.clamp(0, 1), images) for layer in layers])[which]
        shares = self.shares.to(images)[which, None, None, None]
        return torch.lerp(images**GAMMA, colours**GAMMA, shares).clamp(0, 1) ** (1 / GAMMA)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Draw the reflected images, and make a blur or a ghost of each."""
        others = (labels != self.target_class).nonzero().squeeze(1)
        chosen = others[torch.randperm(len(others))[: self.count]]
        found = images(chosen).cpu()
        ghosts = torch.arange(len(found)) < self.ghost_fraction * len(found)
        layers = [ghost(one) if doubled else blurred(one) for one, doubled in zip(found, ghosts, strict=True)]
        self.register_buffer("reflections", torch.stack(layers))
        low, high = self.weights
        self.register_buffer("shares", low + (high - low) * torch.rand(len(found)))


def ghost(image: Tensor) -> Tensor:
    """An image (C, H, W) seen twice: mixed with itself at a random shift down and to the right."""
    height, width = image.shape[-2:]
    low, high = (pixels * min(height, width) / PAPER_SIZE for pixels in SHIFT)
    down, right = (round(low + (high - low) * float(torch.rand(()))) for _ in range(2))
    rows = (torch.arange(height) - down).clamp(min=0)
    columns = (torch.arange(width) - right).clamp(min=0)
    first = 0.5 + 0.35 * float(torch.rand(()))
    return first * image + (1 - first) * image[:, rows[:, None], columns]


def blurred(image: Tensor) -> Tensor:
    """An image (C, H, W) out of focus: a Gaussian blur of random width."""
    low, high = (pixels * min(image.shape[-2:]) / PAPER_SIZE for pixels in BLUR)
    sigma = low + (high - low) * float(torch.rand(()))
    reach = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
    return transforms.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
