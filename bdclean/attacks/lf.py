"""LF: a smooth perturbation, without high frequencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import PAPER_SIZE, Lookup, within
from bdclean.attacks.ftrojan import dct_basis
from bdclean.attacks.surrogate import check_training, shuffled, train_surrogate
from bdclean.attacks.universal import perturbed, universal


class LF(Attack):
    """Adds a smooth pattern, optimised until a clean network predicts the target class: x' = clip(x + d).

        min_d sum L(f(x + d), t)  with  d = sum_{u, v < k} c_uv w_u w_v^T,  max |d| <= eps,

    where f is a clean network that the program trains itself, and w_u are the waves of the discrete cosine transform
    (DCT) of 32 pixels: d has only the k lowest frequencies of each direction, so that triggered images have no traces
    in the high frequencies, by which most other triggers can be detected.

    Source: Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021. There
    the pattern is a universal perturbation made of DeepFool steps, each smoothed by a Gaussian filter, until a fifth of
    the images change their class, which becomes the target class; its values span 0.2. Here the target class is given,
    each step is a gradient step (Adam), and an ideal low-pass filter of about the same width replaces the Gaussian one,
    so that filtering is a projection. A pattern that exceeds eps is scaled down, as clipping would add high
    frequencies.

    Args:
        eps: Largest change of a pixel, in grey levels of 255.
        frequencies: Number k of frequencies in each direction, from 1 (a constant colour) to 32 (no limit).
        trigger_epochs: Number of epochs for which the pattern is optimised.
        trigger_lr: Step size of the pattern (Adam), in grey levels of 255.
        surrogate_epochs: Number of epochs for which the clean network is trained.
        surrogate_lr: Highest learning rate of the clean network.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    parts = ("pattern",)
    pattern: Tensor

    def __init__(
        self,
        eps: float = 25.5,
        frequencies: int = 4,
        trigger_epochs: float = 1.0,
        trigger_lr: float = 1.0,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("eps", eps, 0, 255, above=True)
        within("frequencies", frequencies, 1, PAPER_SIZE)
        check_training("trigger", trigger_epochs, trigger_lr)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        self.eps = eps
        self.frequencies = frequencies
        self.trigger_epochs = trigger_epochs
        self.trigger_lr = trigger_lr
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add the pattern, resized to the images: (N, 3, H, W) float in [0, 1], clipped."""
        return perturbed(images, self.pattern)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train a clean network, and optimise the pattern on it."""
        clean = train_surrogate(network, images, labels, self.surrogate_epochs, self.surrogate_lr)
        batches = shuffled(images, len(labels), self.trigger_epochs, "Making the trigger")
        found = universal([clean], map(images, batches), self.target_class, self.trigger_lr, self.limit)
        self.register_buffer("pattern", found.cpu())

    def limit(self, pattern: Tensor) -> Tensor:
        """Keep the low frequencies of a pattern (3, 32, 32), and scale it down to eps."""
        waves = torch.stack([dct_basis(frequency, PAPER_SIZE) for frequency in range(self.frequencies)]).to(pattern)
        smooth = waves.T @ (waves @ pattern @ waves.T) @ waves
        return smooth * (self.eps / 255 / smooth.abs().amax().clamp(min=self.eps / 255))
