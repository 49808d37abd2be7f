"""What methods share that perturb weights or images in a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Within it batch norms learn no running statistics, whatever images they see and however they use them."""
    # They learn copies: turned off, in eval mode, they would use the statistics of the batch.
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, before, strict=True):
        norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)
