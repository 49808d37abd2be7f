"""Folding batch norms in eval mode into the convolutions before them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bdclean.networks.probe import probe

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CHECK_IMAGES = 2
"""Random images on which the folded network is compared with the original."""
TOLERANCE = 1e-3
"""Largest difference of logits after folding, relative to the largest logit."""


class Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts how many operations take each tensor as an input, while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.inputs: list[Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        options = options or {}
        # Kept alive, so that no other tensor gets the same id.
        self.inputs += [value for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)]
        return function(*arguments, **options)

    def of(self, tensor: Tensor) -> int:
        """Number of operations that took a tensor."""
        return sum(value is tensor for value in self.inputs)


def folded(network: nn.Module, image_size: int) -> nn.Module:
    """Fold each batch norm that follows a convolution into the convolution: same logits, less time.

    Args:
        network: A network in eval mode for images (N, 3, image_size, image_size) in [0, 1]. It is not changed.
        image_size: Height and width of its images, in pixels.

    Returns:
        A copy that shares the tensors of all other layers; or the network itself, if there is nothing to fold or
        folding would change its logits.
    """
    try:
        with Uses() as uses:
            calls = probe(network, image_size)
    except Exception:  # a user's network may not support hooks
        return network
    times = Counter(call.module for call in calls)
    # A user's module may stay in train mode, and always use batch statistics.
    once = [call for call in calls if times[call.module] == 1 and not call.module.training]
    by_output = {id(call.output): call for call in once if type(call.module) in CONVOLUTIONS}
    pairs = [
        (by_output[id(norm.input)].name, norm.name)
        for norm in once
        if type(norm.module) in NORMS
        and cast(Any, norm.module).running_mean is not None
        and norm.input is not None
        and id(norm.input) in by_output
        and uses.of(norm.input) == 1
    ]
    if not pairs:
        return network
    shared = {id(value): value for value in (*network.parameters(), *network.buffers())}
    quick = copy.deepcopy(network, cast(dict[int, Any], shared))
    for convolution, norm in pairs:
        before, behind = (cast(Any, network.get_submodule(name)) for name in (convolution, norm))
        quick.set_submodule(convolution, fuse_conv_bn_eval(before, behind).requires_grad_(False))
        quick.set_submodule(norm, nn.Identity())
    return quick if _same_logits(network, quick, image_size) else network


@torch.no_grad()
def _same_logits(network: nn.Module, quick: nn.Module, image_size: int) -> bool:
    """Whether two networks output the same logits: a user's network may read more of a layer than its output."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(CHECK_IMAGES, 3, image_size, image_size, generator=generator)
    images = images.to(next(network.parameters()))
    logits = network(images)
    try:
        difference = quick(images) - logits
    except Exception:  # a user's network can raise any error
        return False
    return bool(difference.abs().max() <= TOLERANCE * logits.abs().max())
