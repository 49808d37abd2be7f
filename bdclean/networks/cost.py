"""How large networks are, found without computing anything."""

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
    """Networks made inside have parameters with shapes and no data. Everything else is computed as usual."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FILLS:
            filled: Tensor = args[0] if args else kwargs["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def largest_layer(arch: str, image_size: int, stem: Stem | None, arch_kwargs: Mapping[str, Any] | None = None) -> int:
    """How many numbers the largest output of a known network's layers has for one image: nothing is computed.

    0 if it does not take images of that size.

    Args:
        arch: Its name.
        image_size: Height and width of the image, in pixels.
        stem: Which stem it has, where there are two.
        arch_kwargs: As in `build_network`.
    """
    largest = 0

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        largest = max(largest, output.numel() if isinstance(output, Tensor) else 0)

    try:
        with WithoutData():
            network = assemble(arch, 2, image_size, stem, arch_kwargs).to("meta").eval()
        for module in network.modules():
            module.register_forward_hook(note)
        network(torch.empty(1, input_channels(arch), image_size, image_size, device="meta"))
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError):
        return 0
    return largest
