"""Checkpoints of bdclean, of BackdoorBench and of others.

A checkpoint consists of tensors and plain values. Its metadata is checked, and no value is used as the name of
something to import.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bdclean.checkpoint import backdoorbench
from bdclean.checkpoint.backdoorbench import Triggered
from bdclean.checkpoint.claims import DATA, LARGEST_IMAGE, MODEL, vetted, with_new_names
from bdclean.checkpoint.files import load
from bdclean.checkpoint.objects import QUANTISED
from bdclean.checkpoint.weightless import holding, some
from bdclean.errors import Given, InputError
from bdclean.hub import Folder

MARK = "bdclean"
"""Key of bdclean's checkpoints, whose value is the version that wrote them."""
MOST_SHARED = 4
"""Maximum ratio of the size of all weights to the size of their storages, as layers may share weights."""
WEIGHTS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model_state", "model"),
    *("net", "network", "netC", "classifier", "backbone", "weights", "params", "student", "module"),
)
"""Usual keys of the weights, in order of preference; averaged weights come first, as in timm."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, as tensors and plain values.

    Attributes:
        path: The file.
        content: The whole content.
        weights: The network's `state_dict`, with the names in the file.
        place: The key of the weights in `content`; empty if `content` is the weights.
        own: Whether bdclean wrote it.
        model: Arguments of a Suspect that the checkpoint specifies.
        data: Arguments of a PoisonDataModule; `attack` is a name, and `attack_options` are its arguments.
        trigger: The `state_dict` of the attack.
        class_names: Names of the classes; empty if unknown.
        folder: The folder of transformers or timm that it is or is in.
        triggered: Triggered test images; None if it has none.
        resumable: Whether training can resume from it.
        notes: Notices about parts that were left out or changed, one line each.
        skeleton: A network of transformers without weights, which can convert names back to those of the folder.
    """

    path: str
    content: Any
    weights: dict[str, Tensor]
    place: str = ""
    own: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trigger: dict[str, Tensor] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    folder: Folder | None = None
    triggered: Triggered | None = None
    resumable: bool = False
    notes: tuple[str, ...] = ()
    skeleton: nn.Module | None = None


def read_file(path: str, option: Given) -> Checkpoint:
    """Read a checkpoint of a single file: bdclean's, or any `state_dict`, bare or under a usual key.

    Args:
        path: The file: `.ckpt`, `.pt`, `.pth`, `.tar`, `.bin` or `.safetensors`.
        option: The parameter that named the file, for messages.

    Raises:
        InputError: If the file is missing or unreadable, is not plain data, has no weights, or is marked as bdclean's
            but has metadata that bdclean never writes.
    """
    loaded = load(path, option)
    content = loaded.content
    if isinstance(content, dict) and MARK in content:
        return _own(path, content, option)
    place, weights = find_weights(content, option)
    tensors = tensors_of(weights, option, place or "the file")
    checkpoint = Checkpoint(path, content, tensors, place, notes=loaded.notes)
    if not backdoorbench.wrote(content):
        return checkpoint
    model = vetted(backdoorbench.network(content), MODEL, option, "what BackdoorBench says")
    return replace(checkpoint, model=model, triggered=backdoorbench.triggered(content, path))


def _own(path: str, content: dict[str, Any], option: Given) -> Checkpoint:
    missing = [part for part in ("state_dict", "hyper_parameters") if part not in content]
    if missing:
        raise InputError(*option, f"a damaged checkpoint of bdclean, without {' and '.join(missing)}")
    module = content.get("PoisonDataModule", {})
    trigger = module.get("trigger", {}) if isinstance(module, dict) else None
    model = vetted(content["hyper_parameters"], MODEL, option, "hyper_parameters")
    written = vetted(content.get("datamodule_hyper_parameters", {}), DATA, option, "datamodule_hyper_parameters")
    data = with_new_names(written)
    size, padding = data.get("image_size", LARGEST_IMAGE), data.get("crop_padding")
    if padding is not None and padding > size:
        raise InputError(
            *option, f"datamodule_hyper_parameters: crop_padding cannot be {padding} for images of {size} pixels"
        )
    return Checkpoint(
        path=path,
        content=content,
        weights=tensors_of(content["state_dict"], option, "state_dict"),
        place="state_dict",
        own=True,
        model=model,
        data=data,
        trigger=tensors_of(trigger, option, "trigger"),
        resumable="optimizer_states" in content,
    )


def find_weights(content: Any, option: Given) -> tuple[str, dict[str, Any]]:
    """Find the weights in the content of a file.

    Returns:
        The key of the weights, empty if the content is the weights, and the weights.

    Raises:
        InputError: If there are no weights, or several candidates.
    """
    if not isinstance(content, dict):
        raise InputError(*option, f"holds {holding(content)}")
    if _is_state(content):
        return "", content
    found = {str(key): value for key, value in content.items() if _is_state(value)}
    if not found:
        inner = {key: value for key, value in content.items() if isinstance(value, dict)}
        found = {
            f"{key}.{name}": state for key, part in inner.items() for name, state in part.items() if _is_state(state)
        }
    known = [key for key in WEIGHTS if key in found]
    if not known and len(found) != 1:
        what = f"weights under several keys ({some(found)})" if found else holding(content)
        raise InputError(*option, f"holds {what}")
    place = known[0] if known else next(iter(found))
    return place, found[place]


def _is_state(value: Any) -> bool:
    """Whether a value looks like a `state_dict`: text keys, mostly tensors, at least one of them 2D or more."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return False
    tensors = [tensor for tensor in value.values() if isinstance(tensor, Tensor)]
    return 2 * len(tensors) > len(value) and any(tensor.ndim > 1 for tensor in tensors)


def tensors_of(value: Any, option: Given, place: str) -> dict[str, Tensor]:
    """Check that a value is a dictionary of usable weights.

    Args:
        value: The value.
        option: The parameter that named the file, for messages.
        place: The entry in the file, or the name of one of several files, for messages.

    Raises:
        InputError: If it is not such a dictionary, or a tensor is not dense, exceeds its storage, or is not finite.
    """
    if not isinstance(value, dict):
        raise InputError(*option, f"{place} is not a dictionary")
    stored: dict[int, int] = {}
    for name, tensor in value.items():
        if isinstance(name, str) and "_packed_params" in name:
            raise InputError(*option, f"{place} holds {name[:80]!r}, of {QUANTISED}")
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(*option, f"{place} holds {str(name)[:80]!r}, which is not a tensor")
        if tensor.is_quantized:
            raise InputError(*option, f"{place} holds {name[:80]!r}, of {QUANTISED}")
        ordinary = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not ordinary or tensor.is_complex():
            raise InputError(*option, f"{place} holds {name[:80]!r}, which is not an ordinary tensor")
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise InputError(*option, f"{place} holds {name[:80]!r}, which claims more numbers than it has")
        stored[storage.data_ptr()] = storage.nbytes()
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in value.values())
    if claimed > MOST_SHARED * sum(stored.values()) + 2**20:
        raise InputError(*option, f"{place} claims {claimed} bytes of weights and holds {sum(stored.values())}")
    for name, tensor in value.items():
        # As float32, in which they will be used, and because some dtypes do not support isfinite.
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise InputError(*option, f"{place} holds {name[:80]!r}, in which not all numbers are finite")
    return dict(value)
