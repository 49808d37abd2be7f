"""LIRA: an invisible perturbation that is trained together with the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdclean.attacks.base import Attack
from bdclean.attacks.common import seeded, within
from bdclean.attacks.generators import Generator


class LIRA(Attack):
    """Adds a bounded perturbation that a small network generates for each image: x' = x + eps tanh(g(x)).

    In the first stage the generator g and the classifier f are trained together on the loss of clean and triggered
    images, min_f min_g sum L(f(x), y) + L(f(x'), t). In the second stage g is fixed and the training of f continues.

    Source: Doan, Lao, Zhao, Li, "LIRA: Learnable, Imperceptible and Robust Backdoor Attacks", ICCV 2021.

    Args:
        poison_rate: Share of the training images that are triggered, from 0 (a clean network) to 1: the weight of their
            loss beside that of the clean images.
        eps: Largest change of a pixel, in grey levels of 255.
        trigger_training_fraction: Share of the training that is the first stage.
        generator_lr: Learning rate of the generator (Adam).
        width: Number of channels of the generator's first layer.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one", "all-to-all")
    poisons_each_step = True
    trains_trigger = True

    def __init__(
        self,
        poison_rate: float = 0.5,
        eps: float = 8.0,
        trigger_training_fraction: float = 0.5,
        generator_lr: float = 0.001,
        width: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(poison_rate=poison_rate, **options)
        within("eps", eps, 0, 255, above=True)
        within("trigger_training_fraction", trigger_training_fraction, 0, 1, above=True)
        within("generator_lr", generator_lr, 0, 1, above=True)
        within("width", width, 1, 128)
        self.eps = eps
        self.trigger_training_fraction = trigger_training_fraction
        self.generator_lr = generator_lr
        self.width = width
        with seeded(self.seed):
            self.network = Generator(3, 3, width)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add each image's perturbation: (N, 3, H, W) float in [0, 1], clipped."""
        return (images + self.eps / 255 * self.network(images).tanh()).clamp(0, 1)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam for the generator."""
        return torch.optim.Adam(self.network.parameters(), self.generator_lr)
