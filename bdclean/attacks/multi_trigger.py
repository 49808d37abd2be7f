"""MultiTrigger: several triggers, each with a target class of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bdclean.attacks.badnets import BadNets
from bdclean.attacks.base import Attack
from bdclean.attacks.blended import Blended
from bdclean.attacks.common import within
from bdclean.attacks.ftrojan import FTrojan
from bdclean.attacks.sig import SIG
from bdclean.errors import InputError

KINDS = ("BadNets", "Blended", "FTrojan", "SIG")
"""Attacks whose triggers can be combined: those that need no preparation."""


class MultiTrigger(Attack):
    """Poisons one training set with several triggers; trigger k has the target class t + k, for the target class t.

    Each poisoned image carries one trigger, drawn at random, and has the target class of that trigger. Test images
    carry the trigger that `test_trigger` names, and ASR is the ASR of that trigger: `bdclean test
    --data.attack.test_trigger 1` measures the second trigger of a checkpoint.

    Source: Li, He, Huang, Sun, Ma, Jiang, "Shortcuts Everywhere and Nowhere: Exploring Multi-Trigger Backdoor
    Attacks", 2024: its parallel attacks, in which attackers poison the same data independently of each other.

    Args:
        poison_rate: Share of the training images that are poisoned, over all triggers, from 0 (a clean network) to 1.
        triggers: The triggers, by the names of their attacks: `BadNets`, `Blended`, `FTrojan` and `SIG`.
        margin: Distance between the patch and the edges of the image, in pixels (BadNets).
        alpha: Opacity of the picture, above 0 and at most 1 (Blended).
        magnitude: Constant added to each coefficient, in grey levels of 255 (FTrojan).
        delta: Amplitude of the sinusoid, in grey levels of 255 (SIG).
        test_trigger: Number of the trigger on test images, from 0.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range, or a trigger is unknown or named twice.
    """

    label_modes = ("all-to-one",)

    def __init__(
        self,
        poison_rate: float = 0.1,
        triggers: Sequence[str] = ("BadNets", "Blended", "SIG"),
        margin: int = 0,
        alpha: float = 0.2,
        magnitude: float = 30.0,
        delta: float = 20.0,
        test_trigger: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(poison_rate=poison_rate, **options)
        names = list(triggers)
        if not names or len({*names}) < len(names) or not {*names} <= {*KINDS}:
            raise InputError("data.attack.triggers", names, f"must be some of {', '.join(KINDS)}, each once")
        within("test_trigger", test_trigger, 0, len(names) - 1)
        self.triggers = names
        self.margin = margin
        self.alpha = alpha
        self.magnitude = magnitude
        self.delta = delta
        self.test_trigger = test_trigger
        made = {
            "BadNets": BadNets(margin=margin),
            "Blended": Blended(alpha=alpha, seed=self.seed),
            "FTrojan": FTrojan(magnitude=magnitude),
            "SIG": SIG(delta=delta),
        }
        self.attacks = nn.ModuleList(made[name] for name in names)

    @property
    def parallel(self) -> list[Attack]:
        """The attacks that are combined."""
        return [attack for attack in self.attacks if isinstance(attack, Attack)]

    @property
    def built(self) -> bool:
        """Whether all triggers have been made."""
        return all(attack.built for attack in self.parallel)

    def build(self, image_size: int) -> None:
        """Make all triggers."""
        for attack in self.parallel:
            attack.build(image_size)

    def restore(self, trigger: Mapping[str, Tensor]) -> None:
        """Load the triggers from a checkpoint."""
        for number, attack in enumerate(self.parallel):
            start = f"attacks.{number}."
            own = {name.removeprefix(start): value for name, value in trigger.items() if name.startswith(start)}
            attack.restore(own)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Put the trigger of the test images on a batch: (N, C, H, W) float in [0, 1]."""
        return self.parallel[self.test_trigger].apply(images)

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Put its own trigger on each image."""
        numbers, triggered = self.numbers(indices).to(images.device), images.clone()
        for number, attack in enumerate(self.parallel):
            own = numbers == number
            triggered[own] = attack.apply(images[own])
        return triggered

    def numbers(self, indices: Tensor) -> Tensor:
        """Which trigger each training image has if it is poisoned, (N,), by the numbers of the images."""
        return (self.draws(indices, 1)[:, 0] * len(self.attacks)).long()

    def target_labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """The target class of the trigger of the test images."""
        return (super().target_labels(labels, num_classes) + self.test_trigger) % num_classes

    def training_labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """The target class of each image's own trigger."""
        numbers = self.numbers(torch.arange(len(labels))).to(labels.device)
        return (super().target_labels(labels, num_classes) + numbers) % num_classes
