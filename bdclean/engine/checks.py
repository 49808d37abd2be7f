"""Check options of Lightning's Trainer that Lightning checks too late or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.loggers import Logger

from bdclean.errors import Given, InputError, within

LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
    "val_check_interval": 0,
}
"""Minimum of each option."""


def check_options(options: Mapping[str, Any]) -> None:
    """Check the range and the type of options of a Trainer.

    Raises:
        InputError: If an option is out of range or of a wrong type.
    """
    for name, least in LEAST.items():
        if isinstance(value := options.get(name), (int, float)):
            within(f"trainer.{name}", value, least)
        elif value is not None and name != "val_check_interval":
            raise InputError(f"trainer.{name}", repr(value), "must be a number")
    for name, kinds in (("callbacks", (pl.Callback,)), ("logger", (Logger, bool))):
        for one in _listed(options.get(name)):
            if not isinstance(one, kinds):
                raise InputError(f"trainer.{name}", repr(one), f"must be a Lightning {kinds[0].__name__}")
    if any(isinstance(one, BatchSizeFinder) for one in _listed(options.get("callbacks"))):
        raise InputError(
            "trainer.callbacks", "BatchSizeFinder", f"is not supported; set {Given('data.batch_size')} instead"
        )
    if options.get("val_check_interval") == 0:
        raise InputError(
            "trainer.val_check_interval",
            "0",
            f"must be above 0; for no validation, {Given('trainer.limit_val_batches', 0)}",
        )


def _listed(value: Any) -> list[Any]:
    """Convert an option that is None, one value or a list into a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
