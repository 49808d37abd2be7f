"""Parts of a method's steps: forward passes in train mode without side effects, and a limited number of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def fixed_statistics(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged within the context."""
    # They update copies: without running statistics, norms in eval mode would use the statistics of the batch.
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, before, strict=True):
        norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)


def first_batches(batches: Iterable[tuple[Tensor, Tensor]], count: int) -> list[tuple[Tensor, Tensor]]:
    """The first batches of images and targets that have at least `count` images together; all if there are fewer."""
    found: list[tuple[Tensor, Tensor]] = []
    for images, targets in batches:
        found.append((images, targets))
        count -= len(images)
        if count <= 0:
            break
    return found
