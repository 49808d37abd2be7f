"""What methods share that perturb weights or images in a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Within it batch norms learn no running statistics, whatever images they see and however they use them."""
    # Not by turning them off: without tracking, a batch norm in eval mode would use those of the batch.
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
