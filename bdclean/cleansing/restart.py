"""Restarting a training that diverged at a lower learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from bdclean.errors import InputError

MAX_DIVERGENCES = 6
"""Maximum number of restarts."""
RATE_FACTOR = 1 / 4
"""Factor of the learning rate at each restart: at most six give 1/4096."""


def initial_values(module: nn.Module, optimizers: Iterable[Optimizer], prefix: str) -> dict[str, Tensor]:
    """Copies of the parameters and buffers that training changes, by name.

    Args:
        module: The module.
        optimizers: Optimisers whose parameters are copied.
        prefix: Prefix of the names of buffers that are copied.
    """
    trained = {id(value) for optimizer in optimizers for group in optimizer.param_groups for value in group["params"]}
    values: dict[str, Tensor] = {name: value for name, value in module.named_parameters() if id(value) in trained}
    values |= {name: value for name, value in module.named_buffers() if name.startswith(prefix)}
    return {name: value.detach().clone() for name, value in values.items()}


def scale_rates(optimizers: Sequence[Optimizer], schedulers: Sequence[LRSchedulerConfig], factor: float) -> None:
    """Multiply all learning rates by a factor, and reset the momentum."""
    for optimizer in optimizers:
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] *= factor
    for configuration in schedulers:
        scheduler: Any = configuration.scheduler
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def rewind(schedulers: Sequence[LRSchedulerConfig]) -> None:
    """Restart all schedules."""
    for configuration in schedulers:
        scheduler: Any = configuration.scheduler
        scheduler.last_epoch = -1
        scheduler.step()


def untrainable(method: type, option: str, rate: float | None, divergences: int) -> InputError:
    """The error after too many divergences.

    Args:
        method: The cleansing method.
        option: Its option for the learning rate.
        rate: Value of that option.
        divergences: Number of divergences.
    """
    parts = (inspect.signature(part).parameters for part in method.mro())
    default = next((parameters[option].default for parameters in parts if option in parameters), rate)
    often = f"diverged {divergences} times, the last time at 1/{round(RATE_FACTOR**-MAX_DIVERGENCES)} of"
    if rate != default:
        return InputError(
            f"method.{option}", rate, f"too high, the training {often} it; {method.__name__} has {default} by default"
        )
    return InputError(
        "method",
        method.__name__,
        f"its training {often} its learning rate; this method cannot train this network, and nothing was written",
    )
