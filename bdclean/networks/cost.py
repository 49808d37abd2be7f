"""The memory needs of networks, found without allocating or computing tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bdclean.errors import InputError
from bdclean.networks.build import Stem, assemble, input_channels

FILLS = {
    nn.init.constant_,
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    Tensor.normal_,
    Tensor.uniform_,
}
"""In-place functions that set the first values of parameters: without them a network is made in half of the time."""


class WithoutData(TorchFunctionMode):
    """Within this context, parameters of new networks have shapes and no data. Other tensors are computed as usual."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FILLS:
            filled: Tensor = args[0] if args else kwargs["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def largest_layer(arch: str, image_size: int, stem: Stem | None, arch_kwargs: Mapping[str, Any] | None = None) -> int:
    """The size of the largest layer output of a known network for one image, without computing it.

    Args:
        arch: Name of the network.
        image_size: Height and width of the image, in pixels.
        stem: Its stem, for networks with two stems.
        arch_kwargs: Arguments of the network, as in `build_network`.

    Returns:
        Number of elements; 0 if the network does not accept images of this size.
    """
    largest = 0

    def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        largest = max(largest, output.numel() if isinstance(output, Tensor) else 0)

    try:
        with WithoutData():
            network = assemble(arch, 2, image_size, stem, arch_kwargs).to("meta").eval()
        for module in network.modules():
            module.register_forward_hook(record)
        network(torch.empty(1, input_channels(arch), image_size, image_size, device="meta"))
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError):
        return 0
    return largest
