"""What every backdoor attack shares. Attacks know tensors and nothing else."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bdclean import InputError

LabelMode = Literal["all-to-one", "all-to-all"]


class Attack(nn.Module, ABC):
    """A trigger, the class it is meant to call up, and the training images that carry it.

    A new attack is a subclass in a file of its own with one method, `apply`. It keeps every constructor argument in an
    attribute of the same name, and its trigger in buffers; buffers that are made on first use are registered as None.

    Args:
        target_class: Class that triggered images shall get (all-to-one).
        label_mode: `all-to-one`: every triggered image gets the target class; `all-to-all`: class y becomes y + 1.
        poison_rate: Share of the training images that are poisoned, from 0 (a clean network) to 1.
        seed: Fixes which training images are poisoned, and what is random in the trigger.

    Raises:
        InputError: If the poison rate is no share.
    """

    def __init__(
        self,
        target_class: int = 0,
        label_mode: LabelMode = "all-to-one",
        poison_rate: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= poison_rate <= 1:
            raise InputError(f"--data.attack.poison_rate {poison_rate}: must be between 0 and 1")
        self.target_class = target_class
        self.label_mode: LabelMode = label_mode
        self.poison_rate = poison_rate
        self.seed = seed

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]  # nobody walks an attack with Module.apply
        """Put the trigger on a batch.

        Args:
            images: (N, C, H, W) float in [0, 1], on any device.

        Returns:
            The triggered images, a new tensor of the same shape and range.
        """

    def forward(self, images: Tensor) -> Tensor:
        """The same as `apply`."""
        return self.apply(images)

    def target_labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """The class that the attacker wants for a triggered image of each true class.

        Args:
            labels: (N,) true classes.
            num_classes: How many classes there are.

        Raises:
            InputError: If the target is none of the classes.
        """
        if self.label_mode == "all-to-all":
            return (labels + 1) % num_classes
        if not 0 <= self.target_class < num_classes:
            raise InputError(
                f"--data.attack.target_class {self.target_class}: the data have classes 0 to {num_classes - 1}"
            )
        return torch.full_like(labels, self.target_class)

    def choose_poisoned(self, labels: Tensor, num_classes: int) -> Tensor:
        """Which training images are poisoned: `poison_rate` of all, none of them of its own target class.

        Args:
            labels: (N,) true classes of the training images.
            num_classes: How many classes there are.

        Returns:
            (N,) bool, true for the images that carry the trigger.

        Raises:
            InputError: If a rate above 0 poisons no image, or wants more than there are.
        """
        eligible = (self.target_labels(labels, num_classes) != labels).nonzero().squeeze(1)
        count = round(self.poison_rate * len(labels))
        if self.poison_rate > 0 and count == 0:
            raise InputError(f"--data.attack.poison_rate {self.poison_rate}: poisons none of {len(labels)} images")
        if count > len(eligible):
            raise InputError(
                f"--data.attack.poison_rate {self.poison_rate}: wants {count} images of other classes than the "
                f"target, but there are {len(eligible)}"
            )
        order = torch.randperm(len(eligible), generator=torch.Generator().manual_seed(self.seed))
        poisoned = torch.zeros(len(labels), dtype=torch.bool)
        poisoned[eligible[order[:count]]] = True
        return poisoned

    def options(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, as a checkpoint keeps them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take the trigger from a checkpoint, also into buffers that have not been made yet."""
        for name, buffer in self._buffers.items():
            if buffer is None and isinstance(value := state_dict.get(name), Tensor):
                self._buffers[name] = torch.empty_like(value)
        return super().load_state_dict(state_dict, strict, assign)
