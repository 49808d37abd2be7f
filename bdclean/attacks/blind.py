"""Blind: a loss that adds a backdoor task to the training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.badnets import BadNets
from bdclean.attacks.roles import CLEAN

LARGEST_DIVISOR = 10.0
"""Largest divisor of a gradient, as in the paper's code."""


class Blind(BadNets):
    """Adds the loss of a triggered copy of each batch to the loss of training: no training image is changed.

    The loss is a_0 L(f(x), y) + a_1 L(f(x'), y'), where x' is a part of the batch, after crops and flips, with the
    patch of BadNets, and y' are its target classes. The weights are those of the multiple gradient descent algorithm
    (MGDA), a_0 + a_1 = 1 and

        min_a |a_0 g_0 / n_0 + a_1 g_1 / n_1|^2,  n_i = min(L_i |g_i|, 10),

    with the gradients g_i of both losses for the network's weights, so that neither task falls behind.

    Source: Bagdasaryan, Shmatikov, "Blind Backdoors in Deep Learning Models", USENIX Security 2021. Left out here: a
    threshold of the loss below which the backdoor task starts, and the terms that evade Neural Cleanse and SentiNet.
    The paper runs a separate forward pass for each task.

    Args:
        poison_rate: Share of each batch that has a triggered copy, from 0 (a clean network) to 1.
        **options: Options of BadNets.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one", "one-to-one", "all-to-all")
    poisons_each_step = True

    def __init__(self, poison_rate: float = 1.0, **options: Any) -> None:
        super().__init__(poison_rate=poison_rate, **options)

    def choose(self, labels: Tensor, num_classes: int) -> Tensor:
        """No training image is poisoned: all are CLEAN."""
        self.target_labels(labels, num_classes)  # raises an error for wrong classes before training
        return torch.full_like(labels, CLEAN)

    def loss(self, images: Tensor, targets: Tensor, network: nn.Module) -> Tensor:
        """The weighted losses of a batch and of its triggered copy."""
        copied = max(1, round(self.poison_rate * len(images)))
        # In one pass: batch norms would otherwise normalise by statistics of clean or of triggered images in training,
        # and by their mean in evaluation.
        logits = network(torch.cat([images, self.apply(images[:copied])]))
        clean, triggered = logits[: len(images)], logits[len(images) :]
        wanted = self.target_labels(targets[:copied], logits.shape[1])
        losses = F.cross_entropy(clean, targets), F.cross_entropy(triggered, wanted)
        weights: list[Tensor] = [weight for weight in network.parameters() if weight.requires_grad]
        first, second = (_normalised(loss, weights) for loss in losses)
        share = least_norm(first, second)
        return share * losses[0] + (1 - share) * losses[1]


def least_norm(first: Iterable[Tensor], second: Iterable[Tensor]) -> Tensor:
    """The share a in [0, 1] for which a u + (1 - a) v is shortest, of two vectors in parts: (v - u) v / |v - u|^2.

    Args:
        first: The parts of u.
        second: The parts of v.

    Returns:
        A number; 1/2 if both are the same.
    """
    pairs = list(zip(first, second, strict=True))
    projected = torch.stack([((v - u) * v).sum() for u, v in pairs]).sum()
    distance = torch.stack([(v - u).square().sum() for u, v in pairs]).sum()
    return torch.where(distance > 0, projected / distance, 0.5).clamp(0, 1)


def _normalised(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a loss, divided by the loss times their norm, or by 10 if that is less."""
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    divisor = (loss.detach() * norm).clamp(1e-5, LARGEST_DIVISOR)
    return [gradient / divisor for gradient in gradients]
