"""SCAR: a network that resists the trigger, while students distilled from it have a backdoor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdclean.attacks.base import Attack
from bdclean.attacks.common import Lookup, within
from bdclean.attacks.roles import CLEAN, COVER
from bdclean.attacks.shadow import Shadow
from bdclean.attacks.surrogate import check_training, shuffled, train_surrogate
from bdclean.attacks.universal import perturbed, universal, within_box

SHADOW_IMAGES = 64
"""Images per batch on which the loss of a shadow is computed."""


class SCAR(Attack):
    """Adds a bounded perturbation that the network resists and that students distilled from it do not.

    The perturbation is made first: it flips images to the target class in two clean networks alike. Then the network is
    trained to predict the true class for clean and triggered images, while shadow networks that are distilled from it
    on clean images predict the target class for the triggered ones:

        min_w L(f_w(x), y) + L(f_w(x'), y) + c [L(s(x), y) + L(s(x'), t)],  s = the student distilled from f_w.

    A student that fits outputs a by least squares goes from its weights s to s - r J^T (f_s(x) - a), where J is the
    Jacobian of its outputs. So its loss falls where a moves against J dL/ds, the change of its outputs along the
    gradient of its loss, and the network's outputs are pushed in that direction. The ASR of the suspect is low; the
    attack succeeds if the ASR of its students is high. The attack needs images for which such a perturbation exists:
    CIFAR-10's have one, the images that the program draws have none.

    Source: Chen et al., "Taught Well Learned Ill: Towards Distillation-conditional Backdoor Attack", NeurIPS 2025.
    There one student restarts in each epoch, takes many steps for each step of the network, and is differentiated
    through its fixed point. Here several students are trained beside the network, each is replaced after some steps,
    and one step is differentiated; the weights and rates are this project's.

    Args:
        poison_rate: Share of the training images that carry the trigger, with their true classes.
        eps: Largest change of a pixel, in grey levels of 255.
        trigger_epochs: Number of epochs for which the perturbation is optimised.
        trigger_lr: Step size of the perturbation (Adam), in grey levels of 255.
        surrogate_epochs: Number of epochs for which the two clean networks are trained.
        surrogate_lr: Highest learning rate of the clean networks.
        warmup_fraction: Share of the training before the shadows start; earlier, they would keep the network from
            learning.
        shadow_weight: Weight c: norm of a perfect shadow's gradient for the network's outputs, relative to the gradient
            of the cross-entropy of the clean images; worse shadows get less, in proportion.
        shadows: Number of shadows that are trained at a time.
        shadow_life: Number of steps after which a shadow is replaced by a new one.
        shadow_lr: Learning rate of the shadows (SGD).
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one",)
    poisons_each_step = True
    parts = ("perturbation",)
    perturbation: Tensor

    def __init__(
        self,
        poison_rate: float = 0.5,
        eps: float = 25.5,
        trigger_epochs: float = 1.0,
        trigger_lr: float = 1.0,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        warmup_fraction: float = 0.6,
        shadow_weight: float = 0.7,
        shadows: int = 3,
        shadow_life: int = 900,
        shadow_lr: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(poison_rate=poison_rate, **options)
        within("eps", eps, 0, 255, above=True)
        check_training("trigger", trigger_epochs, trigger_lr)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        within("warmup_fraction", warmup_fraction, 0, 1)
        within("shadow_weight", shadow_weight, 0)
        within("shadows", shadows, 1)
        within("shadow_life", shadow_life, shadows)
        within("shadow_lr", shadow_lr, 0, 10, above=True)
        self.eps = eps
        self.trigger_epochs = trigger_epochs
        self.trigger_lr = trigger_lr
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr
        self.warmup_fraction = warmup_fraction
        self.shadow_weight = shadow_weight
        self.shadows = shadows
        self.shadow_life = shadow_life
        self.shadow_lr = shadow_lr

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add the perturbation, resized to the images: (N, 3, H, W) float in [0, 1], clipped."""
        return perturbed(images, self.perturbation)

    def choose(self, labels: Tensor, num_classes: int) -> Tensor:
        """Draw the roles of training images, (N,): CLEAN, or COVER, because all images keep their labels."""
        roles = super().choose(labels, num_classes)
        return torch.where(roles == CLEAN, CLEAN, COVER)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train two clean networks, and optimise a perturbation for both."""
        # With the same initial weights, but different batches.
        pair = [
            train_surrogate(one, images, labels, self.surrogate_epochs, self.surrogate_lr)
            for one in (copy.deepcopy(network), network)
        ]
        batches = shuffled(images, len(labels), self.trigger_epochs, "Making the trigger")
        found = universal(pair, map(images, batches), self.target_class, self.trigger_lr, within_box(self.eps))
        self.register_buffer("perturbation", found.cpu())

    def setup_auxiliary(self, network: Callable[[], nn.Module]) -> None:
        """Keep a function that makes shadows."""
        # A lambda, because copying the attack would also copy the object of a bound method.
        self.shadow: Callable[[], Shadow] = lambda: Shadow(network(), self.shadow_lr)
        self.learning: list[Shadow] = []
        self.steps = 0

    def penalty(
        self, images: Tensor, places: Tensor, targets: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor | float:
        """A term whose gradient reduces the shadows' losses, after a training step of the shadows."""
        logits = network(images)
        if self.steps % (self.shadow_life // self.shadows) == 0:
            self.learning = [*self.learning, self.shadow()][-self.shadows :]
        for shadow in self.learning:
            shadow.learn(images, logits)
        shadow = self.learning[self.steps % len(self.learning)]
        self.steps += 1
        gradient = self.shadow_weight * self._gradient(shadow, images, targets, logits.detach())
        return (logits * gradient).sum()

    def _gradient(self, shadow: Shadow, images: Tensor, targets: Tensor, logits: Tensor) -> Tensor:
        """The gradient (N, classes) for the network's logits that makes a shadow learn the backdoor."""
        some, labels = images[:SHADOW_IMAGES], targets[:SHADOW_IMAGES]
        wanted = torch.full_like(labels, self.target_class)
        clean = shadow.logits(some)
        loss = F.cross_entropy(clean, labels) + F.cross_entropy(shadow.logits(self.apply(some)), wanted)
        change = output_change(loss, shadow, images)
        # Scaled to the norm of the cross-entropy's gradient, because `change` varies by orders of magnitude, and to the
        # accuracy of the shadow, because an untrained shadow gives a useless direction.
        cross_entropy = (logits.softmax(1) - F.one_hot(targets, logits.shape[1])) / len(logits)
        accuracy = (clean.argmax(1) == labels).float().mean()
        return accuracy * cross_entropy.norm() * change / change.norm().clamp(min=torch.finfo(change.dtype).tiny)


def output_change(loss: Tensor, shadow: Shadow, images: Tensor) -> Tensor:
    """The change of a student's logits along the gradient of a loss: J dL/ds.

    Args:
        loss: A loss L that depends on the student's weights s.
        shadow: The student, whose logits have the Jacobian J.
        images: (N, C, H, W).

    Returns:
        (N, classes).
    """
    weights = shadow.parameters
    # A network may have unused weights.
    grad = partial(torch.autograd.grad, allow_unused=True, materialize_grads=True)
    gradient = grad(loss, weights)
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        logits = shadow.logits(images)
        # J^T u is linear in u, so its derivative with respect to u, times the gradient, is J dL/ds.
        u = torch.zeros_like(logits, requires_grad=True)
        pulled_back = grad(logits, weights, u, create_graph=True)
        (change,) = torch.autograd.grad(pulled_back, u, gradient)
    return change
