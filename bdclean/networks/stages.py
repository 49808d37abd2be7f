"""The stages of any network, found from its structure instead of its names.

A forward pass with a probe image gives the order of the layers and the number of positions (pixels, patches, tokens) of
each layer's output. The first layer is the stem, the last layer the head; between them a stage ends where the number of
positions falls for good. Networks with a constant resolution, such as vision transformers, are divided into four stages
of equal depth.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

from bdclean.networks.probe import probe

LAYERS = (_ConvNd, nn.Linear, nn.MultiheadAttention)
DEPTH_STAGES = 4


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and its stage: 0 is the stem, then come the stages in order, and last the head.

    Attributes:
        name: Name of the layer.
        module: The layer.
        stage: Number of its stage.
        acts: Whether the probe's forward pass used the layer.
    """

    name: str
    module: nn.Module
    stage: int
    acts: bool


def weights(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a convolution, linear or attention layer, including the parameters of parametrisations."""
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    return {
        name: value
        for name, value in layer.named_parameters()
        if value.ndim > 1 and (name in own or name.startswith("parametrizations."))
    }


def find_stages(network: nn.Module, image_size: int) -> list[Layer]:
    """Find all convolution, linear and attention layers in the order of the forward pass, and their stages.

    A layer that the probe does not reach is placed after the preceding layer in the order of registration; it is never
    the head.

    Args:
        network: Maps (N, 3, image_size, image_size) to (N, classes). Its mode and statistics are not changed.
        image_size: Height and width of its images, in pixels.

    Returns:
        The layers; the number of stages is the last layer's stage plus 1. Empty if the network has no such layer.
    """
    modules: dict[str, nn.Module] = {name: m for name, m in network.named_modules() if isinstance(m, LAYERS)}
    positions: dict[str, int] = {}
    for call in probe(network, image_size):
        if call.name in modules:
            positions.setdefault(call.name, call.positions)
    order = list(positions)
    acts, head = set(order), order[-1:]
    for previous, name in zip([None, *modules], modules, strict=False):
        if name not in positions:
            place = 0 if previous is None else order.index(previous) + (previous not in head)
            order.insert(place, name)
            positions[name] = positions[order[place - 1]] if place else 1
    if len(order) < 3:
        return [Layer(name, modules[name], stage, name in acts) for stage, name in enumerate(order)]

    inner = order[1:-1]
    resolutions: list[int] = []
    # From the end, so that a squeeze-and-excitation layer (one position) belongs to the layers that follow it.
    for name in reversed(inner):
        resolutions.append(max(positions[name], resolutions[-1] if resolutions else 0))
    levels = sorted(set(resolutions), reverse=True)
    stages = [1 + levels.index(resolution) for resolution in reversed(resolutions)]
    if len(levels) == 1:
        parts = min(DEPTH_STAGES, len(inner))
        stages = [1 + index * parts // len(inner) for index in range(len(inner))]
    numbers = [0, *stages, stages[-1] + 1]
    return [Layer(name, modules[name], stage, name in acts) for name, stage in zip(order, numbers, strict=True)]


def find_features(network: nn.Module, image_size: int) -> list[str]:
    """Find the modules whose outputs are the feature maps at the end of each stage after the stem.

    For each stage, this is the last module, block or layer, whose output has more than one position and that ends
    before the next stage begins: for the last stage, the feature map before pooling.

    Args:
        network: Maps (N, 3, image_size, image_size) to (N, classes). Its mode and statistics are not changed.
        image_size: Height and width of its images, in pixels.

    Returns:
        Names of modules, at most one per stage; empty if no stage has spatial feature maps.
    """
    layers = find_stages(network, image_size)
    stages = {layer.name: layer.stage for layer in layers}
    found: dict[int, str] = {}
    stage = 0
    for call in probe(network, image_size):
        if call.name == layers[-1].name:
            break
        stage = max(stage, stages.get(call.name, 0))
        if stage > 0 and call.positions > 1:
            found[stage] = call.name
    return [found[stage] for stage in sorted(found)]
