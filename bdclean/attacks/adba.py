"""ADBA: a trigger that is trained together with the network and a student of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import PAPER_SIZE, seeded, within
from bdclean.attacks.shadow import Shadow


class ADBA(Attack):
    """Blends a pattern in through a mask, x' = x (1 - m) + p m, both trained to survive distillation.

    A shadow network is trained beside the network by distillation on clean images alone, as a defender would. Mask and
    pattern are trained so that both the network and the shadow predict the target class for triggered images; the mask
    is also kept small, with a weight that grows with the success of the trigger. The result is a trigger that the
    network's clean predictions transfer to a student.

    Source: Ge, Wang, Zheng, Zhuang, Li, Shen, Wang, "Anti-Distillation Backdoor Attacks: Backdoors Can Really Survive
    in Knowledge Distillation", ACM Multimedia 2021. The weights of the terms and the rates are this project's.

    Args:
        mask_weight: Weight of the mask's mean in the loss of the trigger.
        shadow_weight: Weight of the shadow's loss in the loss of the trigger; the network's loss has weight 1.
        trigger_lr: Learning rate of the trigger (Adam, on values before a sigmoid).
        trigger_training_fraction: Share of the training during which the trigger is trained.
        shadow_lr: Learning rate of the shadow (SGD).
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one",)
    poisons_each_step = True
    trains_trigger = True

    def __init__(
        self,
        mask_weight: float = 3.0,
        shadow_weight: float = 1.0,
        trigger_lr: float = 0.02,
        trigger_training_fraction: float = 0.5,
        shadow_lr: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("mask_weight", mask_weight, 0)
        within("shadow_weight", shadow_weight, 0)
        within("trigger_lr", trigger_lr, 0, 1, above=True)
        within("trigger_training_fraction", trigger_training_fraction, 0, 1, above=True)
        within("shadow_lr", shadow_lr, 0, 10, above=True)
        self.mask_weight = mask_weight
        self.shadow_weight = shadow_weight
        self.trigger_lr = trigger_lr
        self.trigger_training_fraction = trigger_training_fraction
        self.shadow_lr = shadow_lr
        self.shadow: Shadow | None = None
        with seeded(self.seed):
            # Values before a sigmoid, so the initial mask is faint.
            self.mask = nn.Parameter(torch.randn(1, PAPER_SIZE, PAPER_SIZE) - 3)
            self.pattern = nn.Parameter(torch.randn(3, PAPER_SIZE, PAPER_SIZE))

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Blend the pattern into images (N, 3, H, W) in [0, 1]. Mask and pattern are resized to the images."""
        mask, pattern = (
            F.interpolate(raw[None].sigmoid(), images.shape[-2:], mode="bilinear") for raw in (self.mask, self.pattern)
        )
        return images * (1 - mask) + pattern * mask

    def setup_auxiliary(self, network: Callable[[], nn.Module]) -> None:
        """Make the shadow."""
        self.shadow = Shadow(network(), self.shadow_lr)

    def penalty(
        self, images: Tensor, places: Tensor, targets: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor | float:
        """The shadow's loss on triggered images, and the mask's size, after the shadow's step on clean images."""
        assert self.shadow is not None
        with torch.no_grad():
            logits = network(images)
        self.shadow.learn(images, logits)
        loss = F.cross_entropy(self.shadow.logits_for_frozen_weights(self.apply(images[places])), targets[places])
        # Weighted by the success of the trigger: before it works, the size would dominate, and the mask would vanish.
        size = loss.detach().neg().exp() * self.mask.sigmoid().mean()
        return self.shadow_weight * loss + self.mask_weight * size

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam for mask and pattern."""
        return torch.optim.Adam(self.parameters(), self.trigger_lr)
