"""Limiting the size of a network that a file describes to the size of the weights in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

MAX_RATIO = 2
"""Largest ratio of the network's tensors, and of their elements, to those in the file."""
FREE_TENSORS = 64
"""Tensors that a network may have in addition."""
FREE_ELEMENTS = 2**20
"""Elements that its tensors may have in addition."""


class TooLargeError(Exception):
    """A configuration describes a network that is much larger than its weights."""


@contextmanager
def bounded(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse networks within the context that are much larger than given weights.

    Raises:
        TooLargeError: If a network has too many tensors or elements.
    """
    tensors = MAX_RATIO * len(weights) + FREE_TENSORS
    numbers = MAX_RATIO * sum(value.numel() for value in weights.values()) + FREE_ELEMENTS
    seen = [0, 0]

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        seen[0] += 1
        seen[1] += 0 if parameter is None else parameter.numel()
        if seen[0] > tensors or seen[1] > numbers:
            raise TooLargeError("its configuration describes a network many times as large as its weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
