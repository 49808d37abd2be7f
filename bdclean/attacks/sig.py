"""SIG: a sinusoid across the image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bdclean.attacks.base import Attack, LabelMode
from bdclean.attacks.common import within


class SIG(Attack):
    """Adds a horizontal sinusoid to every row: x'(i, j) = x(i, j) + d sin(2 pi j f / W) for column j of W.

    Source: Barni, Kallas, Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
    ICIP 2019.

    Args:
        label_mode: `clean-label`, as in the paper: only images of the target class are poisoned; `all-to-one`: every
            triggered image gets the target class; `one-to-one`: triggered images of the source class get the target
            class; `all-to-all`: class y becomes y + 1.
        poison_rate: Share of the target class's training images that are poisoned, from 0 (a clean network) to 1; in
            `one-to-one` of the source class's, in the other modes of all.
        delta: Amplitude d of the sinusoid, in grey levels of 255.
        frequency: Number f of periods across the width of the image.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(
        self,
        label_mode: LabelMode = "clean-label",
        poison_rate: float = 0.8,
        delta: float = 20.0,
        frequency: float = 6.0,
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, **options)
        within("delta", delta, 0, 255, above=True)
        within("frequency", frequency, 0, 10_000, above=True)
        self.delta = delta
        self.frequency = frequency

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add the sinusoid to a batch: (N, C, H, W) float in [0, 1], clipped."""
        width = images.shape[-1]
        phase = 2 * math.pi * self.frequency / width * torch.arange(width, device=images.device)
        return (images + self.delta / 255 * phase.sin().to(images)).clamp(0, 1)
