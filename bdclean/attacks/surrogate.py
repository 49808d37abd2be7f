"""Training a clean network, which some attacks use to make a trigger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm  # comes with lightning, which draws its progress bars with it

from bdclean.attacks.common import Lookup, within
from bdclean.training import batch_size, pieces

ADVERSARIAL_STEPS = 7
"""Steps of projected gradient ascent in adversarial training."""


def check_training(what: str, epochs: float, lr: float) -> None:
    """Check the ranges of the options `{what}_epochs` and `{what}_lr`."""
    within(f"{what}_epochs", epochs, 0, 10_000, above=True)
    within(f"{what}_lr", lr, 0, 10, above=True)


def progress(steps: Sequence[Tensor] | range, what: str) -> tqdm[Any]:
    """Show a progress bar over steps, on terminals."""
    return tqdm(steps, what, unit="step", disable=None)


def shuffled(images: Lookup, count: int, epochs: float, what: str) -> tqdm[Tensor]:
    """Batches of numbers below `count`, shuffled in each epoch, with a progress bar.

    Args:
        images: Returns the images, whose size determines the batch size.
        count: Number of images.
        epochs: Number of epochs; fractions are possible.
        what: Text of the progress bar.

    Returns:
        Tensors of numbers, of almost equal length.
    """
    orders = torch.cat([torch.randperm(count) for _ in range(max(1, math.ceil(epochs)))])
    chosen = orders[: max(1, round(epochs * count))]
    # Of equal length, because batch norms fail for a single image.
    return progress(pieces(chosen, batch_size(images(chosen[:1]))), what)


def train_surrogate(
    network: nn.Module, images: Lookup, labels: Tensor, epochs: float, lr: float, eps: float = 0.0
) -> nn.Module:
    """Train a classifier on clean images; the other arguments and the result are those of `train`.

    Args:
        network: As in `train`.
        images: As in `train`.
        labels: (N,) true classes.
        epochs: As in `train`.
        lr: As in `train`.
        eps: Largest change of a pixel in adversarial training: each step trains on the images of projected gradient
            ascent with 7 steps of eps / 4 (Madry et al., ICLR 2018); 0 trains on the clean images.
    """

    def loss(inputs: Tensor, indices: Tensor) -> Tensor:
        classes = labels[indices.to(labels.device)].to(inputs.device)
        if eps > 0:
            # In eval mode, so that the search does not change the batch norm statistics.
            inputs = pgd(network.eval(), inputs, classes, eps, eps / 4, ADVERSARIAL_STEPS)
            network.train()
        return F.cross_entropy(network(inputs), classes)

    return train(network, images, len(labels), epochs, lr, loss)


def train(
    network: nn.Module,
    images: Lookup,
    count: int,
    epochs: float,
    lr: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    what: str = "Training a clean network",
) -> nn.Module:
    """Train a network by SGD with momentum .9, weight decay 5e-4, and a one-cycle schedule of the learning rate.

    Args:
        network: Maps images in [0, 1] to logits; it is trained in place.
        images: Returns training images by number, on the network's device.
        count: Number of images.
        epochs: Number of epochs; fractions are possible.
        lr: Highest learning rate.
        loss: Maps images and their numbers to the loss.
        what: Text of the progress bar.

    Returns:
        The network, in eval mode, without gradients for its weights.
    """
    batches = shuffled(images, count, epochs, what)
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, cycle_momentum=False)
    network.train()
    for indices in batches:
        value = loss(images(indices), indices)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def pgd(network: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """Projected gradient ascent on the cross-entropy, from a random start in the ball.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Args:
        network: Maps images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) true classes.
        eps: Largest change of a pixel.
        step: Change of each pixel in a step.
        steps: Number of steps.

    Returns:
        (N, C, H, W) in [0, 1], each pixel within `eps` of the image's.
    """
    labels = labels.to(images.device)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    found = torch.minimum(torch.maximum(images + eps * (2 * torch.rand_like(images) - 1), low), high)
    for _ in range(steps):
        found.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(found), labels), found)
        found = torch.minimum(torch.maximum(found.detach() + step * gradient.sign(), low), high)
    return found
