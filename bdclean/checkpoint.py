"""Reading files nobody should trust.

A checkpoint is tensors and plain values. It is read without pickle's machinery for making objects, its plain values are
checked against what they can be, and no value is ever taken for the name of something to import.
"""

from __future__ import annotations

import logging
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdclean import InputError


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 4096 and value.isprintable()


def _name(value: Any) -> bool:
    return _text(value) and value.isidentifier()


def _three_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(x) is float and math.isfinite(x) for x in value)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or _text(value)


def _plain(value: Any) -> bool:
    # No deeper: a list can hold itself.
    return len(value) < 1000 and all(map(_scalar, value)) if isinstance(value, (list, tuple)) else _scalar(value)


def _options(value: Any) -> bool:
    return isinstance(value, dict) and all(_name(key) and _plain(entry) for key, entry in value.items())


MODEL: dict[str, Callable[[Any], bool]] = {
    "arch": _text,
    "num_classes": _number(2, 100_000),
    "image_size": _number(1, 4096),
    "mean": _three_numbers,
    "std": _three_numbers,
}
"""What a checkpoint says of its network, and what each value can be."""

DATA: dict[str, Callable[[Any], bool]] = {
    "source": _optional(_text),
    "attack": _optional(_name),
    "attack_options": _options,
    "num_held_out": _optional(_number(1, 10**9)),
    "num_val": _optional(_number(1, 10**9)),
    "num_train": _optional(_number(1, 10**9)),
    "image_size": _number(1, 4096),
    "crop_padding": _optional(_number(0, 4096)),
    "flip": lambda value: type(value) is bool,
    "seed": _number(0, 2**63),
}
"""What a checkpoint says of its images and its attack, and what each value can be."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read: all of it tensors and plain values.

    Attributes:
        path: The file.
        weights: The network's `state_dict`.
        model: Arguments of a Classifier.
        data: Arguments of a PoisonDataModule, but `attack` is a name, and `attack_options` are its arguments.
        trigger: The `state_dict` of the attack.
        resumable: Whether training can go on from it.
    """

    path: str
    weights: dict[str, Tensor]
    model: dict[str, Any]
    data: dict[str, Any]
    trigger: dict[str, Tensor]
    resumable: bool


def read(path: str, option: str = "--ckpt") -> Checkpoint:
    """Read a checkpoint that `bdclean fit` or `bdclean cleanse` wrote, or that pretends to be one.

    Args:
        path: The file.
        option: The option that named it, for messages.

    Raises:
        InputError: If the file is missing, unreadable, not plain data, or says what no checkpoint of ours says.
    """
    option = f"{option} {path}"
    content = _load(path, option)
    if not isinstance(content, dict) or "state_dict" not in content or "hyper_parameters" not in content:
        raise InputError(f"{option}: not a checkpoint of bdclean (no state_dict, or no hyper_parameters beside it)")
    data = content.get("PoisonDataModule", {})
    trigger = data.get("trigger", {}) if isinstance(data, dict) else None
    return Checkpoint(
        path=path,
        weights=_tensors(content["state_dict"], f"{option}: state_dict"),
        model=_vetted(content["hyper_parameters"], MODEL, f"{option}: hyper_parameters"),
        data=_vetted(content.get("datamodule_hyper_parameters", {}), DATA, f"{option}: datamodule_hyper_parameters"),
        trigger=_tensors(trigger, f"{option}: trigger"),
        resumable="optimizer_states" in content,
    )


def _load(path: str, option: str) -> Any:
    if not Path(path).is_file():
        raise InputError(f"{option}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere inside torch, in any way
        logging.getLogger(__name__).debug("%s", option, exc_info=True)
        blocked = _blocked(path)
        if blocked:
            raise InputError(f"{option}: refused, it would run code on loading: {', '.join(blocked)}") from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{option}: not a readable checkpoint ({reason[:200]})") from error


def _blocked(path: str) -> list[str]:
    """What a pickle in the file wants to import: found by reading its code, not by running it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))[:10]
    except Exception:  # as above; legacy files are not covered by torch's scanner
        return []


def _tensors(value: Any, what: str) -> dict[str, Tensor]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is no dictionary")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{what} holds {str(name)[:80]!r}, which is no tensor")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise InputError(f"{what} holds {name[:80]!r}, which is no ordinary tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{what} holds {name[:80]!r}, which claims more numbers than it has")
    return dict(value)


def _vetted(values: Any, known: dict[str, Callable[[Any], bool]], what: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"{what} is no dictionary")
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{what} holds {str(name)[:80]!r}, which bdclean never writes")
        if not known[name](value):
            raise InputError(f"{what}: {name} cannot be {reprlib.repr(value)}")
    return dict(values)
