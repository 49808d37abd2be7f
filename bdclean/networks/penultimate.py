"""The penultimate features of any network: the inputs of its last layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from bdclean.networks.stages import find_stages


def last_layer(network: nn.Module, image_size: int) -> nn.Module | None:
    """The layer of a network that outputs the logits; None if it is neither linear nor convolutional."""
    layers = find_stages(network, image_size)
    return layers[-1].module if layers and isinstance(layers[-1].module, nn.Linear | nn.Conv2d) else None


def penultimate(network: nn.Module, head: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a network, and keep the inputs of its last layer.

    Args:
        network: Maps images (N, 3, H, W) to logits.
        head: The network's last layer.
        images: The images.

    Returns:
        (N, D) features, the mean over positions if they have several, and (N, C) logits.
    """
    with _inputs(head) as found:
        logits = network(images)
    features = found[-1]
    if isinstance(head, nn.Conv2d):
        return features.flatten(2).mean(2), logits
    return features if features.ndim == 2 else features.flatten(1, -2).mean(1), logits


@contextmanager
def _inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets the input of each call of a module in this context."""
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        hook.remove()
