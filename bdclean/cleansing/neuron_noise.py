"""Adversarial noise of neurons: the relative changes of channels that harm a network most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoisyLoss = Callable[[list[Tensor], list[Tensor]], Tensor]
"""The loss with the channels' scales and shifts multiplied by factors, one tensor (count,) a layer each."""


def worst_factors(
    loss: NoisyLoss, scales: Sequence[Tensor], eps: float, steps: int = 1
) -> tuple[list[Tensor], list[Tensor]]:
    """Factors of the channels' scales and shifts that maximise a loss, within eps of given ones.

    The noise starts uniform in [-eps, eps] and takes `steps` steps eps / steps sign(grad L), with clipping.

    Args:
        loss: The loss.
        scales: For each layer, (count,) factors of the scales without noise; those of the shifts are 1.
        eps: Largest absolute value of the noise.
        steps: Number of steps.

    Returns:
        For each layer, (count,) factors of the scales, with the gradients of `scales`, and of the shifts.
    """
    noise = [torch.empty_like(one).uniform_(-eps, eps) for _ in range(2) for one in scales]
    layers = len(scales)
    for _ in range(steps):
        noise = [value.requires_grad_() for value in noise]
        delta, xi = noise[:layers], noise[layers:]
        worse = loss([one.detach() + d for one, d in zip(scales, delta, strict=True)], [1 + x for x in xi])
        # Layers without shifts do not use xi.
        gradients = torch.autograd.grad(worse, noise, allow_unused=True, materialize_grads=True)
        noise = [
            (value.detach() + eps / steps * gradient.sign()).clamp(-eps, eps)
            for value, gradient in zip(noise, gradients, strict=True)
        ]
    return [one + d for one, d in zip(scales, noise[:layers], strict=True)], [1 + x for x in noise[layers:]]
