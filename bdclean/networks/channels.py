"""The output channels of the layers of any network, which the pruning literature calls neurons."""

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
    """The output channels of a convolution or linear layer, and the norm layer after it, if there is one.

    The scales and shifts of the channels are `weight` and `bias` of the norm layer, or else of the layer itself.

    Attributes:
        layer: Name of the layer.
        norm: Name of the norm layer; None if there is none.
        count: Number of channels.
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
    """Find the output channels of each layer except the head, in the order of the forward pass.

    Layers with parametrised weights are left out if no norm layer follows them.

    Args:
        network: Takes (N, 3, image_size, image_size). Its mode and statistics are not changed.
        image_size: Height and width of its images, in pixels.
    """
    layers: dict[str, Channels] = {}
    last, layer_of_output = "", {}
    for call in probe(network, image_size):
        if isinstance(call.module, (_ConvNd, nn.Linear)) and not isinstance(call.module, _ConvTransposeNd):
            last = call.name
            width = call.module.out_channels if isinstance(call.module, _ConvNd) else call.module.out_features
            layers.setdefault(call.name, Channels(call.name, None, width))
            layer_of_output[id(call.output)] = call.name
        elif isinstance(call.module, NORMS) and call.input is not None:
            before = layers.get(layer_of_output.get(id(call.input), ""))
            scales = getattr(call.module, "weight", None)
            if before is not None and scales is not None and scales.shape == (before.count,):
                layers[before.layer] = Channels(before.layer, call.name, before.count)
    layers.pop(last, None)
    parameters = dict(network.named_parameters())
    return [channels for channels in layers.values() if channels.weight in parameters]


def scale(
    parameters: Mapping[str, Tensor],
    layers: Iterable[Channels],
    weights: Iterable[Tensor],
    biases: Iterable[Tensor] = (),
) -> dict[str, Tensor]:
    """Multiply the parameters of channels, channel by channel.

    Args:
        parameters: Parameters of the network, by name.
        layers: The channels to scale.
        weights: For each of these layers, (count,) factors of the scales.
        biases: For each of these layers, (count,) factors of the shifts; by default the shifts are not changed.

    Returns:
        The changed parameters only, for `torch.func.functional_call`.
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
