"""Load the weights of a checkpoint into a network."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn

from bdclean import first_ten
from bdclean.checkpoint import Checkpoint
from bdclean.errors import Given, InputError
from bdclean.networks import best_prefix, closest, shapes_of, without


def load_weights(network: nn.Module, arch: str | None, num_classes: int, checkpoint: Checkpoint, option: Given) -> str:
    """Load the weights of a checkpoint into a network.

    Args:
        network: The network.
        arch: Name of the network, for messages.
        num_classes: Number of classes of the network, for messages.
        checkpoint: The checkpoint.
        option: The parameter that named the checkpoint, and its path.

    Returns:
        The prefix of the names of the tensors in the checkpoint.

    Raises:
        InputError: If the weights do not fit the network.
    """
    expected = network.state_dict()
    prefix, wrong = best_prefix(shapes_of(expected), shapes_of(checkpoint.weights), arch)
    if wrong:
        near, _ = closest(checkpoint.weights)
        raise InputError(
            *option,
            f"does not fit {arch} with {num_classes} classes: {first_ten(wrong)}"
            + (f"; the closest known network is {near.arch}" if near else ""),
        )
    weights = without(checkpoint.weights, prefix)
    for name, value in weights.items():
        if name in expected and value.is_floating_point() != expected[name].is_floating_point():
            raise InputError(*option, f"{name} holds {value.dtype}, the network {expected[name].dtype}")
    state: OrderedDict[str, Tensor] = OrderedDict(weights)
    # Some layers check their version when they load.
    cast(Any, state)._metadata = cast(Any, expected)._metadata
    network.load_state_dict(state, strict=False)
    return prefix
