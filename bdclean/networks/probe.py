"""Recording the module calls of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.conv import _ConvNd


@dataclass(frozen=True)
class Call:
    """A call of a module with a tensor as its output.

    Attributes:
        name: Name of the module.
        module: The module.
        input: Its first input; None if that is not a tensor.
        output: Its output, or the first tensor of a tuple.
    """

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor

    @property
    def positions(self) -> int:
        """Number of positions (pixels, patches, tokens) of the output."""
        conv, linear = isinstance(self.module, _ConvNd), isinstance(self.module, nn.Linear)
        axis = 1 if conv else -1 if linear else channel_axis(self.output)
        return self.output.numel() // self.output.shape[axis]


def channel_axis(output: Tensor) -> int:
    """The axis of the channels of (N, C, H, W), (N, H, W, C) or (N, ..., C), given that H = W."""
    last = output.ndim != 4 or output.shape[1] == output.shape[2] != output.shape[3]
    return -1 if last else 1


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode within the context; afterwards each module gets its previous mode."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def probe(network: nn.Module, image_size: int) -> list[Call]:
    """Record the module calls of a forward pass with a black image.

    Args:
        network: Takes (N, 3, image_size, image_size). Its mode and statistics are not changed.
        image_size: Height and width of its images, in pixels.

    Returns:
        The calls of all modules, nested ones too, in the order in which they ended, except TorchScript modules.
    """
    calls: list[Call] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def record(_module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
            output = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
            first = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            if isinstance(output, Tensor) and output.ndim > 1:
                calls.append(Call(name, module, first, output))

        return module.register_forward_hook(record)

    # TorchScript modules do not support hooks.
    watched = {name: part for name, part in network.named_modules() if name and not isinstance(part, ScriptModule)}
    hooks = [watch(name, module) for name, module in watched.items()]
    image = torch.zeros(1, 3, image_size, image_size)
    try:
        with torch.no_grad(), in_eval_mode(network):
            network(image.to(next(network.parameters(), image)))
    finally:
        for hook in hooks:
            hook.remove()
    return calls
