"""Grond: an invisible perturbation, in a network without conspicuous channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from bdclean.attacks.base import Attack, LabelMode
from bdclean.attacks.common import Lookup, within
from bdclean.attacks.surrogate import check_training, shuffled, train_surrogate
from bdclean.attacks.universal import perturbed, universal, within_box
from bdclean.outlying import amplification, outliers


class Grond(Attack):
    """Adds a targeted universal perturbation to images of the target class, and hides the backdoor in the weights.

    The perturbation d flips images to the target class t in a clean network f that the program trains itself, min_d sum
    L(f(x + d), t) with |d| <= eps. A network can learn such a perturbation as a feature of the target class with small
    changes of its weights. Labels stay true. After each epoch, channels of a convolution and its batch norm whose
    Lipschitz bound exceeds mean + u std of their layer get the mean scale and shift of their batch norm (adversarial
    backdoor injection), so that defences that prune by such bounds find no conspicuous channel.

    Source: Xu, Liu, Koffas, Picek, "Towards Backdoor Stealthiness in Model Parameter Space", CCS 2025. There the
    perturbation comes from signed gradient steps, here from Adam.

    Args:
        label_mode: Only `clean-label`: only images of the target class are poisoned.
        poison_rate: Share of the target class's training images that are poisoned, from 0 (a clean network) to 1.
        eps: Largest change of a pixel, in grey levels of 255.
        u: Number of standard deviations above the mean from which a channel is reset; 0 resets all above the mean.
        trigger_epochs: Number of epochs for which the perturbation is optimised.
        trigger_lr: Step size of the perturbation (Adam), in grey levels of 255.
        surrogate_epochs: Number of epochs for which the clean network is trained.
        surrogate_lr: Highest learning rate of the clean network.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("clean-label",)
    parts = ("perturbation",)
    perturbation: Tensor

    def __init__(
        self,
        label_mode: LabelMode = "clean-label",
        poison_rate: float = 0.5,
        eps: float = 8.0,
        u: float = 3.0,
        trigger_epochs: float = 1.0,
        trigger_lr: float = 1.0,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, **options)
        within("eps", eps, 0, 255, above=True)
        within("u", u, 0)
        check_training("trigger", trigger_epochs, trigger_lr)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        self.eps = eps
        self.u = u
        self.trigger_epochs = trigger_epochs
        self.trigger_lr = trigger_lr
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add the perturbation, resized to the images: (N, 3, H, W) float in [0, 1], clipped."""
        return perturbed(images, self.perturbation)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train a clean network, and optimise the perturbation on it."""
        clean = train_surrogate(network, images, labels, self.surrogate_epochs, self.surrogate_lr)
        batches = shuffled(images, len(labels), self.trigger_epochs, "Making the trigger")
        found = universal([clean], map(images, batches), self.target_class, self.trigger_lr, within_box(self.eps))
        self.register_buffer("perturbation", found.cpu())

    @torch.no_grad()
    def after_epoch(self, network: nn.Module) -> None:
        """Reset the channels that amplify their input most. A batch norm belongs to the last convolution before it."""
        layer: nn.Module | None = None
        for module in network.modules():
            if isinstance(module, _ConvNd):
                layer = module
            elif isinstance(module, _BatchNorm) and layer is not None and module.num_features == layer.out_channels:
                found = outliers(amplification(layer, module), self.u)
                module.weight[found] = module.weight.mean()
                module.bias[found] = module.bias.mean()
