"""What happens inside a network while an image goes through it."""

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
    """A module that took tensors and answered one."""

    name: str
    module: nn.Module
    taken: Tensor | None
    answer: Tensor

    @property
    def positions(self) -> int:
        """At how many places (pixels, patches, tokens) it answers."""
        conv, linear = isinstance(self.module, _ConvNd), isinstance(self.module, nn.Linear)
        axis = 1 if conv else -1 if linear else channel_axis(self.answer)
        return self.answer.numel() // self.answer.shape[axis]


def channel_axis(answer: Tensor) -> int:
    """Where the channels of (N, C, H, W), (N, H, W, C) or (N, ..., C) are: images are as high as they are wide."""
    last = answer.ndim != 4 or answer.shape[1] == answer.shape[2] != answer.shape[3]
    return -1 if last else 1


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Within it a network is in eval mode; afterwards each of its modules is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def probe(network: nn.Module, image_size: int) -> list[Call]:
    """Send an empty image through a network, and watch.

    Args:
        network: Takes (N, 3, image_size, image_size). Its mode and statistics stay.
        image_size: Height and width of the images it is made for, in pixels.

    Returns:
        Every call of a module, parts and wholes, in the order in which they ended, but of compiled ones (TorchScript).
    """
    calls: list[Call] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            answer = output if isinstance(output, Tensor) else output[0] if isinstance(output, (tuple, list)) else None
            taken = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            if isinstance(answer, Tensor) and answer.ndim > 1:
                calls.append(Call(name, module, taken, answer))

        return module.register_forward_hook(note)

    # What TorchScript compiled takes no hooks.
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
