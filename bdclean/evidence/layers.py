"""How strongly a trigger activates the channels of each layer, and how far cleansing moved the layer's weights.

Source: Zheng et al., "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022 (arXiv:2208.03111), which
defines the trigger-activated change (TAC) of a channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bdclean.networks import Channels, find_channels, find_stages, weights
from bdclean.training import batch_size, pieces


@dataclass(frozen=True)
class LayerChange:
    """A layer.

    Attributes:
        name: Name of the layer.
        channel: The channel that the trigger activates most in the first network; None if the layer has no channels.
        change: TAC of that channel in each network, relative to the mean activation of the layer's channels.
        moved: Norm of the difference of the layer's weights between the networks, in percent of the norm in the first;
            None with one network, or if the shapes differ.
    """

    name: str
    channel: int | None
    change: tuple[float, ...]
    moved: float | None


def changed_layers(networks: list[nn.Module], clean: Tensor, triggered: Tensor) -> list[LayerChange]:
    """Compare the layers of one network, or of two with the same layers, in the order of the forward pass.

    Args:
        networks: The suspect, and the cleansed network if there is one, in eval mode.
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.
    """
    size = clean.shape[-1]
    changes = [channel_changes(one, find_channels(one, size), clean, triggered) for one in networks]
    found = []
    for layer in find_stages(networks[0], size):
        own = changes[0].get(layer.name)
        channel = None if own is None else int(own.argmax())
        # Another network may lack the layer or, after pruning, the channel.
        known = channel is not None and all(layer.name in one and len(one[layer.name]) > channel for one in changes)
        change = tuple(float(one[layer.name][channel]) for one in changes) if known else ()
        moved = _moved(layer.module, dict(networks[1].named_modules()).get(layer.name)) if networks[1:] else None
        found.append(LayerChange(layer.name, channel if known else None, change, moved))
    return found


@torch.no_grad()
def channel_changes(network: nn.Module, layers: list[Channels], clean: Tensor, triggered: Tensor) -> dict[str, Tensor]:
    """The TAC of each channel, relative to the mean activation of its layer's channels.

    The TAC is the mean over images of the norm, over positions, of the difference between the outputs for the triggered
    and for the clean image. The outputs are those of the norm layer, if there is one.

    Args:
        network: Maps images to logits, in eval mode.
        layers: The layers.
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.

    Returns:
        (channels,) for each layer, by name.
    """
    sums: dict[str, Tensor] = {}
    size = max(1, batch_size(clean) // 4)
    for some, same in zip(pieces(clean, size), pieces(triggered, size), strict=True):
        with _watch(network, layers, sums, 2 * len(some)):
            network(torch.cat([some, same]))
    return {name: (change / size.mean().clamp(min=1e-12)).cpu() for name, (change, size) in sums.items()}


@contextmanager
def _watch(network: nn.Module, layers: list[Channels], sums: dict[str, Tensor], batch: int) -> Iterator[None]:
    """Add up the norms of each channel's changes and of its clean outputs, (2, channels) for each layer.

    Layers whose outputs do not begin with the images, as where tokens come first, are left out.
    """
    modules = dict(network.named_modules())

    def add(layer: Channels) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if len(output) % batch:
                return
            first = output.ndim == 4 and output.shape[1] == layer.count
            values = (output if first else output.movedim(-1, 1)).float()
            clean, triggered = values.reshape(*values.shape[:2], -1).chunk(2)
            norms = [part.norm(dim=2).sum(0) for part in (triggered - clean, clean)]
            sums[layer.layer] = sums.get(layer.layer, 0) + torch.stack(norms)

        return modules[layer.norm or layer.layer].register_forward_hook(hook)

    hooks = [add(layer) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _moved(before: nn.Module, after: nn.Module | None) -> float | None:
    old, new = ({} if layer is None else weights(layer) for layer in (before, after))
    if not old or {name: one.shape for name, one in old.items()} != {name: one.shape for name, one in new.items()}:
        return None
    difference, size = ([values.norm() for values in part] for part in (_differences(old, new), old.values()))
    return round(100 * float(torch.stack(difference).norm() / torch.stack(size).norm().clamp(min=1e-12)), 2)


def _differences(old: dict[str, nn.Parameter], new: dict[str, nn.Parameter]) -> list[Tensor]:
    return [new[name].to(value) - value for name, value in old.items()]
