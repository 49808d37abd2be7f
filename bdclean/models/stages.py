"""The stages of any network, found from its structure instead of from names.

A probe image goes through the network and shows in which order its layers act, and at how many positions (pixels,
patches, tokens) each one answers. The first layer is the stem, the last one the head; between them a stage ends where
the number of positions falls for good. Networks that keep one resolution, such as vision transformers, are cut into
four stages of equal depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

LAYERS = (_ConvNd, nn.Linear, nn.MultiheadAttention)
DEPTH_STAGES = 4


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and the stage it is in: 0 is the stem, then the stages in order, the last is the head."""

    name: str
    module: nn.Module
    stage: int


def weights(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a convolution, linear or attention layer: its own parameters, or those they are made of."""
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    return {
        name: value
        for name, value in layer.named_parameters()
        if value.ndim > 1 and (name in own or name.startswith("parametrizations."))
    }


def find_stages(network: nn.Module, image_size: int) -> list[Layer]:
    """Find every convolution, linear and attention layer of a network, in the order they act, and their stages.

    Layers that the probe does not reach stand with the layer before them in the order of registration.

    Args:
        network: Takes (N, 3, image_size, image_size) and answers (N, classes). Its mode and statistics stay.
        image_size: Height and width of the images it is made for, in pixels.

    Returns:
        The layers; the number of stages is that of the last one plus one. Empty if the network has no such layer.
    """
    modules: dict[str, nn.Module] = {name: m for name, m in network.named_modules() if isinstance(m, LAYERS)}
    positions = _positions(network, modules, torch.zeros(1, 3, image_size, image_size))
    order = list(positions)
    for previous, name in zip([None, *modules], modules, strict=False):
        if name not in positions:
            order.insert(0 if previous is None else order.index(previous) + 1, name)
            positions[name] = 1 if previous is None else positions[previous]
    if len(order) < 3:
        return [Layer(name, modules[name], stage) for stage, name in enumerate(order)]

    inner = order[1:-1]
    resolutions: list[int] = []
    # Seen from the end, so that a squeeze-and-excitation layer (one position) counts with the layers that follow it.
    for name in reversed(inner):
        resolutions.append(max(positions[name], resolutions[-1] if resolutions else 0))
    levels = sorted(set(resolutions), reverse=True)
    stages = [1 + levels.index(resolution) for resolution in reversed(resolutions)]
    if len(levels) == 1:
        parts = min(DEPTH_STAGES, len(inner))
        stages = [1 + index * parts // len(inner) for index in range(len(inner))]
    return [Layer(name, modules[name], stage) for name, stage in zip(order, [0, *stages, stages[-1] + 1], strict=True)]


def _positions(network: nn.Module, modules: dict[str, nn.Module], probe: Tensor) -> dict[str, int]:
    """At how many positions each layer answers the probe, in the order in which the layers act."""
    positions: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            answer = output if isinstance(output, Tensor) else output[0]
            width = answer.shape[1] if isinstance(module, _ConvNd) else answer.shape[-1]
            positions.setdefault(name, answer.numel() // width)

        return module.register_forward_hook(note)

    modes = {module: module.training for module in network.modules()}
    hooks = [watch(name, module) for name, module in modules.items()]
    parameter = next(network.parameters(), probe)
    try:
        network.eval()
        with torch.no_grad():
            network(probe.to(parameter))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return positions
