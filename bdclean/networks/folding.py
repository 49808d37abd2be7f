"""Batch norms that do not learn any more are part of the convolutions before them."""

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
SHOWN, CLOSE = 2, 1e-3
"""Random images by which it is seen that nothing changed; by which share of the largest logit answers may differ."""


class Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts how often each tensor is taken by an operation, while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.taken: list[Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        options = options or {}
        # Kept, so that no other tensor is taken for one of them.
        self.taken += [value for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)]
        return function(*arguments, **options)

    def of(self, tensor: Tensor) -> int:
        """How often a tensor was taken."""
        return sum(value is tensor for value in self.taken)


def folded(network: nn.Module, image_size: int) -> nn.Module:
    """A network that answers the same, faster: where a batch norm follows a convolution, there is one convolution.

    Args:
        network: In eval mode, for images (N, 3, image_size, image_size) in [0, 1]. It is not changed.
        image_size: Height and width of its images, in pixels.

    Returns:
        A copy that shares the numbers of all other layers; the network itself where there is nothing to fold, or where
        what it answers would not stay the same.
    """
    try:
        with Uses() as uses:
            calls = probe(network, image_size)
    except Exception:  # somebody's network may not bear to be watched
        return network
    times = Counter(call.module for call in calls)
    # Somebody's may stay in train mode, and go by the batch at all times.
    once = [call for call in calls if times[call.module] == 1 and not call.module.training]
    answered = {id(call.answer): call for call in once if type(call.module) in CONVOLUTIONS}
    pairs = [
        (answered[id(norm.taken)].name, norm.name)
        for norm in once
        if type(norm.module) in NORMS
        and cast(Any, norm.module).running_mean is not None
        and norm.taken is not None
        and id(norm.taken) in answered
        and uses.of(norm.taken) == 1
    ]
    if not pairs:
        return network
    shared = {id(value): value for value in (*network.parameters(), *network.buffers())}
    quick = copy.deepcopy(network, cast(dict[int, Any], shared))
    for convolution, norm in pairs:
        before, behind = (cast(Any, network.get_submodule(name)) for name in (convolution, norm))
        quick.set_submodule(convolution, fuse_conv_bn_eval(before, behind).requires_grad_(False))
        quick.set_submodule(norm, nn.Identity())
    return quick if _same(network, quick, image_size) else network


@torch.no_grad()
def _same(network: nn.Module, quick: nn.Module, image_size: int) -> bool:
    """Whether two networks answer the same: somebody's may look at more of a layer than its answer."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(SHOWN, 3, image_size, image_size, generator=generator)
    images = images.to(next(network.parameters()))
    answers = network(images)
    try:
        difference = quick(images) - answers
    except Exception:  # somebody's network may fail in any way
        return False
    return bool(difference.abs().max() <= CLOSE * answers.abs().max())
