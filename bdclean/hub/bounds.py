"""Networks that a file describes, no larger than the weights that come with the description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

SPARE = 2
"""A description may ask for so many times the tensors, and the numbers in them, that come with it."""
LEAST_TENSORS, LEAST_NUMBERS = 64, 2**20
"""So much it may ask for in any case."""


class TooLargeError(Exception):
    """A description asks for more than its weights fill."""


@contextmanager
def bounded(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, networks with far more tensors, or numbers in them, than given weights have cannot be made."""
    tensors = SPARE * len(weights) + LEAST_TENSORS
    numbers = SPARE * sum(value.numel() for value in weights.values()) + LEAST_NUMBERS
    seen = [0, 0]

    def note(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        seen[0] += 1
        seen[1] += 0 if parameter is None else parameter.numel()
        if seen[0] > tensors or seen[1] > numbers:
            raise TooLargeError("what it says of its network is many times as large as its weights")

    handle = register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()
