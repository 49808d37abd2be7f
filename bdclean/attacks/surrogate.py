"""A clean network of the attacker's own, to make a trigger with."""

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


def check_training(what: str, epochs: float, lr: float) -> None:
    """Check the options `what_epochs` and `what_lr`, as `within` does."""
    within(f"{what}_epochs", epochs, 0, 10_000, above=True)
    within(f"{what}_lr", lr, 0, 10, above=True)


def progress(steps: Sequence[Tensor] | range, what: str) -> tqdm[Any]:
    """Steps behind a progress bar, on terminals."""
    return tqdm(steps, what, unit="step", disable=None)


def shuffled(images: Lookup, count: int, epochs: float, what: str) -> tqdm[Tensor]:
    """Batches of numbers below `count`, in a new order each epoch, behind a progress bar.

    Args:
        images: Gives the images, whose size says how many are worked on at once.
        count: How many images there are.
        epochs: How often each is seen; also a part of once.
        what: What the progress bar says.

    Returns:
        Tensors of numbers, of almost equal length.
    """
    orders = torch.cat([torch.randperm(count) for _ in range(max(1, math.ceil(epochs)))])
    chosen = orders[: max(1, round(epochs * count))]
    # Equal, as no batch norm can do with a single image.
    return progress(pieces(chosen, batch_size(images(chosen[:1]))), what)


def train_surrogate(network: nn.Module, images: Lookup, labels: Tensor, epochs: float, lr: float) -> nn.Module:
    """Train a classifier on clean images by their classes, (N,). The others as in `train`, and so what is returned."""

    def loss(inputs: Tensor, indices: Tensor) -> Tensor:
        return F.cross_entropy(network(inputs), labels[indices.to(labels.device)].to(inputs.device))

    return train(network, images, len(labels), epochs, lr, loss)


def train(
    network: nn.Module,
    images: Lookup,
    count: int,
    epochs: float,
    lr: float,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> nn.Module:
    """Train a network: SGD with momentum .9, weight decay 5e-4, and one cycle of learning rates.

    Args:
        network: From images in [0, 1] to logits; it is trained in place.
        images: Gives the training images, on the network's device.
        count: How many there are.
        epochs: How often each image is seen; also a part of once.
        lr: Highest learning rate.
        loss: From images and their numbers to what shall fall.

    Returns:
        The network, in eval mode, without gradients for its weights.
    """
    batches = shuffled(images, count, epochs, "Training a clean network")
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
