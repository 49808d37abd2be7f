"""The stages of any network, found from its structure instead of from names.

A probe image goes through the network and shows in which order its layers act, and at how many positions (pixels,
patches, tokens) each one answers. The first layer is the stem, the last one the head; between them a stage ends where
the number of positions falls for good. Networks that keep one resolution, such as vision transformers, are cut into
four stages of equal depth.
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
    """A layer with weights, and the stage it is in: 0 is the stem, then the stages in order, the last is the head.

    Attributes:
        acts: Whether the network was seen to use it.
    """

    name: str
    module: nn.Module
    stage: int
    acts: bool


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

    Layers that the probe does not reach stand with the layer before them in the order of registration; none is the
    head.

    Args:
        network: Takes (N, 3, image_size, image_size) and answers (N, classes). Its mode and statistics stay.
        image_size: Height and width of the images it is made for, in pixels.

    Returns:
        The layers; the number of stages is that of the last one plus one. Empty if the network has no such layer.
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
    # Seen from the end, so that a squeeze-and-excitation layer (one position) counts with the layers that follow it.
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
    """Find the modules whose answers are what each stage hands on, from the first stage after the stem on.

    That is the last module to end, block or layer, before the next stage begins, whose answer has more than one
    position: before the head, what is there before the positions are pooled.

    Args:
        network: As in `find_stages`.
        image_size: As in `find_stages`.

    Returns:
        Names of modules, at most one a stage; empty if no stage has positions.
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
