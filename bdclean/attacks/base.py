"""The base class of backdoor attacks. Attacks depend on tensors only."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.choice import Choice, LabelMode
from bdclean.attacks.common import Keep, Lookup, make_part, within
from bdclean.errors import InputError

__all__ = ["Attack", "LabelMode"]


class Attack(Choice, nn.Module, ABC):
    """A trigger, its target class, and the training images that carry it.

    A new attack is a subclass in a file of its own with one method, `apply`. It keeps every constructor argument in an
    attribute of the same name and passes the arguments of this class on as `**options`. What else an attack can define:

    - a trigger that is drawn, or read from a file: `build`, and in `parts` the names of the buffers that hold it;
    - training images that differ from triggered test images: `poison`; some with true labels among them: `cover_ratio`;
    - preparations before training, such as a clean network: `prepare`;
    - poisoning in each training step, on batches: `poisons_each_step`;
    - a trigger that is trained with the network: parameters, `trains_trigger`, `optimizer`, and perhaps `penalty`;
    - a second network that is trained beside the first: `setup_auxiliary`, and `penalty`;
    - a training loss other than the cross-entropy: `loss`;
    - changes of the network between epochs: `after_epoch`.

    Args:
        target_class: Class that triggered images should be predicted as (not in all-to-all).
        label_mode: `all-to-one`: every triggered image gets the target class; `one-to-one`: triggered images of the
            source class get the target class, others are not poisoned; `all-to-all`: class y becomes y + 1;
            `clean-label`: only images of the target class are poisoned, so that every label is true.
        poison_rate: Share of the training images that are poisoned, from 0 (a clean network) to 1. With `clean-label`
            and `one-to-one`: share of the training images of the target class and of the source class.
        seed: Seed of the choice of poisoned images, and of the random parts of the trigger.
        source_class: Class whose triggered images should be predicted as the target class (one-to-one).

    Raises:
        InputError: If a number is out of range, or the attack does not support the label mode.
    """

    label_modes: ClassVar[tuple[str, ...]] = ("all-to-one", "one-to-one", "all-to-all", "clean-label")
    """Label modes that the attack supports."""
    parts: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers that hold the trigger, once `build` or `prepare` has made it: checkpoints keep them."""
    trains_trigger: ClassVar[bool] = False
    """Whether the trigger is trained with the network; `poisons_each_step` is then set, too."""
    poisons_each_step: ClassVar[bool] = False
    """Whether `poison` is called in each training step, instead of once for each image."""
    trigger_training_fraction: float = 1.0
    """Share of the training during which the trigger is trained, with the network."""
    warmup_fraction: float = 0.0
    """Share of the training before `penalty` counts."""

    def __init__(
        self,
        target_class: int = 0,
        label_mode: LabelMode = "all-to-one",
        poison_rate: float = 0.1,
        seed: int = 0,
        source_class: int = 1,
    ) -> None:
        super().__init__()
        within("poison_rate", poison_rate, 0, 1)
        within("seed", seed, 0, 2**63 - 1)
        if label_mode not in self.label_modes:
            modes = " or ".join(self.label_modes)
            raise InputError("data.attack.label_mode", label_mode, f"{type(self).__name__} is {modes}")
        self.target_class = target_class
        self.label_mode: LabelMode = label_mode
        self.poison_rate = poison_rate
        self.seed = seed
        self.source_class = source_class

    @property
    def built(self) -> bool:
        """Whether the trigger has been made."""
        return all(name in self._buffers for name in self.parts)

    def build(self, image_size: int) -> None:
        """Make the trigger, once and before it is used, unless `prepare` makes it; by default there is nothing to make.

        Args:
            image_size: Height and width of the images, in pixels.

        Raises:
            InputError: If it cannot be made, or only `prepare` can make it.
        """
        if self.parts:
            name = type(self).__name__
            raise InputError("data.attack", name, "its trigger is made by `bdclean fit`, and is in that checkpoint")

    def restore(self, trigger: Mapping[str, Tensor]) -> None:
        """Load a trigger of any size from a checkpoint, instead of making one.

        Args:
            trigger: A `state_dict` of the attack.

        Raises:
            RuntimeError: If it belongs to another attack.
        """
        for name in self.parts:
            self.register_buffer(name, torch.empty_like(trigger.get(name, torch.empty(0))))
        self.load_state_dict(trigger)

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]  # Module.apply is not used for attacks
        """Apply the trigger to a batch of test images, deterministically.

        Args:
            images: (N, C, H, W) float in [0, 1], on the attack's device.

        Returns:
        The triggered images, a new tensor of the same shape and range.
        """

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Make poisoned training images; by default the same as `apply`.

        Args:
            images: (N, C, H, W) float in [0, 1], poisoned or cover images.
            cover: (N,) bool, true for cover images, which keep their labels.
            indices: (N,) numbers of the images in the training set, for randomness that is fixed for each image.

        Returns:
        The images that the network is trained on, of the same shape.
        """
        return self.apply(images)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Make the parts of the trigger, as buffers, before the first image is poisoned; by default nothing.

        It is called once, and its buffers are kept on disk. The global random generator is seeded with `seed`.

        Args:
            images: Returns clean training images of the attacker by number, on the device of the network.
            labels: (N,) their true classes.
            num_classes: Number of classes.
            network: An untrained network of the backdoored architecture, which maps images in [0, 1] to logits; or the
                trained one of `surrogate`.
        """

    surrogate: str | None = None
    """File of a trained network that `prepare` gets, instead of an untrained one."""
    keep: Keep = staticmethod(make_part)
    """Makes a part of the preparation. While the preparation is written to disk, it returns the parts that an
    interrupted command has made instead, and seeds the random numbers of each part by its name."""

    @property
    def prepares(self) -> bool:
        """Whether there is something to `prepare`."""
        return type(self).prepare is not Attack.prepare

    def optimizer(self) -> torch.optim.Optimizer:
        """Optimiser of the trigger, if it `trains_trigger`."""
        raise NotImplementedError

    @property
    def has_auxiliary(self) -> bool:
        """Whether a second network is trained beside the first."""
        return type(self).setup_auxiliary is not Attack.setup_auxiliary

    def setup_auxiliary(self, network: Callable[[], nn.Module]) -> None:
        """Make a second network that is trained beside the first, before training; by default none.

        Args:
            network: Returns an untrained network, as in `prepare`.
        """

    def penalty(
        self, images: Tensor, places: Tensor, targets: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor | float:
        """A term that is added to the training loss of a batch with poisoned or cover images.

        Args:
            images: (N, C, H, W) float in [0, 1], all images of the batch, before poisoning.
            places: (M,) positions of poisoned and cover images.
            targets: (N,) classes that the network is trained towards.
            network: The network in training, which maps images in [0, 1] to logits; each call updates its batch norm
                statistics.
        """
        return 0.0

    def loss(self, images: Tensor, targets: Tensor, network: nn.Module) -> Tensor:
        """The training loss of a batch, if the attack `poisons_each_step`; by default the cross-entropy.

        Args:
            images: (N, C, H, W) float in [0, 1], poisoned, cropped and flipped.
            targets: (N,) classes that the network is trained towards.
            network: The network in training, from images in [0, 1] to logits.
        """
        return F.cross_entropy(network(images), targets)

    def after_epoch(self, network: nn.Module) -> None:
        """Change the weights of the network in place, after each epoch of its training; by default nothing.

        Args:
            network: The network in training, from normalised images to logits.
        """

    # Checkpoints

    def options(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, for a checkpoint."""
        names: dict[str, None] = {}
        for part in type(self).mro():
            parameters = inspect.signature(part).parameters.values()
            names |= dict.fromkeys(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)
            if all(one.kind is not one.VAR_KEYWORD for one in parameters):
                break
        return {name: getattr(self, name) for name in names}
