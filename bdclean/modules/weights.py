"""The weights of a checkpoint for a network."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn

from bdclean import first_ten
from bdclean.checkpoint import Checkpoint
from bdclean.errors import Given, InputError
from bdclean.networks import best_prefix, closest, shapes_of, without


def load_weights(network: nn.Module, arch: str | None, num_classes: int, checkpoint: Checkpoint, option: Given) -> str:
    """Give a network the weights of a checkpoint.

    Args:
        network: The network.
        arch: Its name, for messages.
        num_classes: How many classes it has, for messages.
        checkpoint: What was read.
        option: The parameter that named the checkpoint, and its path.

    Returns:
        What stands before the name of each tensor in the checkpoint.

    Raises:
        InputError: If they are those of another network.
    """
    own = network.state_dict()
    prefix, wrong = best_prefix(shapes_of(own), shapes_of(checkpoint.weights), arch)
    if wrong:
        near, _ = closest(checkpoint.weights)
        raise InputError(
            *option,
            f"does not fit {arch} with {num_classes} classes: {first_ten(wrong)}"
            + (f"; the closest known network is {near.arch}" if near else ""),
        )
    weights = without(checkpoint.weights, prefix)
    for name, value in weights.items():
        if name in own and value.is_floating_point() != own[name].is_floating_point():
            raise InputError(*option, f"{name} holds {value.dtype}, the network {own[name].dtype}")
    state: OrderedDict[str, Tensor] = OrderedDict(weights)
    # The versions of its layers, which some of them ask for.
    cast(Any, state)._metadata = cast(Any, own)._metadata
    network.load_state_dict(state, strict=False)
    return prefix
