"""The output channels of the layers of any network: what pruning calls neurons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bdclean.networks.probe import probe

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Channels:
    """The output channels of a convolution or linear layer, and the norm layer that acts on just these, if one does.

    Where there is one, its scales (`weight`) and shifts (`bias`) are those of the channels, else the layer's own.
    """

    layer: str
    norm: str | None
    count: int

    @property
    def weight(self) -> str:
        """Name of the parameter whose rows are the channels' scales."""
        return f"{self.norm or self.layer}.weight"

    @property
    def bias(self) -> str:
        """Name of the parameter that holds the channels' shifts, if there is one."""
        return f"{self.norm or self.layer}.bias"


def find_channels(network: nn.Module, image_size: int) -> list[Channels]:
    """Find the output channels of each layer of a network but the head, in the order the layers act.

    Left out are layers whose weights are made of others, by a parametrisation, if no norm layer follows them.

    Args:
        network: Takes (N, 3, image_size, image_size). Its mode and statistics stay.
        image_size: Height and width of the images it is made for, in pixels.
    """
    layers: dict[str, Channels] = {}
    last, answers = "", {}
    for call in probe(network, image_size):
        if isinstance(call.module, (_ConvNd, nn.Linear)) and not isinstance(call.module, _ConvTransposeNd):
            last = call.name
            width = call.module.out_channels if isinstance(call.module, _ConvNd) else call.module.out_features
            layers.setdefault(call.name, Channels(call.name, None, width))
            answers[id(call.answer)] = call.name
        elif isinstance(call.module, NORMS) and call.taken is not None:
            before = layers.get(answers.get(id(call.taken), ""))
            scales = getattr(call.module, "weight", None)
            if before is not None and scales is not None and scales.shape == (before.count,):
                layers[before.layer] = Channels(before.layer, call.name, before.count)
    layers.pop(last, None)
    own = dict(network.named_parameters())
    return [channels for channels in layers.values() if channels.weight in own]


def scale(
    parameters: Mapping[str, Tensor],
    layers: Iterable[Channels],
    weights: Iterable[Tensor],
    biases: Iterable[Tensor] = (),
) -> dict[str, Tensor]:
    """The parameters of channels, multiplied channel by channel.

    Args:
        parameters: Of the network, by name.
        layers: Which channels.
        weights: For each of these layers (count,) factors of the scales.
        biases: The same of the shifts; without them these stay.

    Returns:
        The changed ones alone, for `torch.func.functional_call`.
    """
    layers = list(layers)
    changed = {}
    for channels, factor in zip(layers, weights, strict=True):
        old = parameters[channels.weight]
        changed[channels.weight] = old * factor.to(old).view(-1, *[1] * (old.ndim - 1))
    for channels, factor in zip(layers, biases, strict=False):
        if channels.bias in parameters:
            old = parameters[channels.bias]
            changed[channels.bias] = old * factor.to(old)
    return changed
