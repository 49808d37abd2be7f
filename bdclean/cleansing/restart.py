"""A training that diverged begins anew at a lower rate."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from bdclean.errors import InputError

MOST_DIVERGENCES = 6
"""Times that a training begins anew."""
LOWER = 1 / 4
"""Factor of the learning rate each time: down to 1/4096 of it."""


def beginning(module: nn.Module, optimizers: Iterable[Optimizer], prefix: str) -> dict[str, Tensor]:
    """Copies of what training changes, by names in the module.

    Args:
        module: The module.
        optimizers: Their parameters are among them.
        prefix: Buffers whose names begin so are.
    """
    trained = {id(value) for optimizer in optimizers for group in optimizer.param_groups for value in group["params"]}
    values: dict[str, Tensor] = {name: value for name, value in module.named_parameters() if id(value) in trained}
    values |= {name: value for name, value in module.named_buffers() if name.startswith(prefix)}
    return {name: value.detach().clone() for name, value in values.items()}


def lower(optimizers: Sequence[Optimizer], schedulers: Sequence[LRSchedulerConfig], factor: float) -> None:
    """Multiply all learning rates by a factor, and forget momentum."""
    for optimizer in optimizers:
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] *= factor
    for configuration in schedulers:
        scheduler: Any = configuration.scheduler
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def rewind(schedulers: Sequence[LRSchedulerConfig]) -> None:
    """Let all schedules begin anew."""
    for configuration in schedulers:
        scheduler: Any = configuration.scheduler
        scheduler.last_epoch = -1
        scheduler.step()


def untrainable(method: type, option: str, rate: float | None, divergences: int) -> InputError:
    """The error that beginning anew has not helped often enough.

    Args:
        method: The cleansing method.
        option: Its option with the learning rate.
        rate: What that was.
        divergences: How often the training diverged.
    """
    parts = (inspect.signature(part).parameters for part in method.mro())
    usual = next((own[option].default for own in parts if option in own), rate)
    often = f"diverged {divergences} times, the last time at 1/{round(LOWER**-MOST_DIVERGENCES)} of"
    if rate != usual:
        return InputError(
            f"method.{option}", rate, f"too high, the training {often} it; {method.__name__} has {usual} by default"
        )
    return InputError(
        "method",
        method.__name__,
        f"its training {often} its learning rate: this network cannot be trained so; nothing was written",
    )
