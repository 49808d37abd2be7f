"""What the description of a network says, in this program's terms: plain values, of which none names code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bdclean.errors import Given, InputError
from bdclean.hub.folders import CONFIG, Folder
from bdclean.hub.networks import library, network_names
from bdclean.hub.processors import Preparation, of_timm, of_transformers
from bdclean.hub.resizes import UnknownPreparationError

CODE = ("auto_map", "custom_pipelines", "quantization_config")
"""Entries by which a description has somebody's code run, or weights that are no numbers."""
PARTS = ("vision_config",)
"""Descriptions inside one of several networks: that of images."""
LONGEST_NAME = 200
"""Characters of the name of a class that are kept."""


@dataclass(frozen=True)
class Description:
    """What a folder says of its network.

    Attributes:
        model: Arguments of a Suspect, unchecked.
        class_names: What its classes are called; empty if that is not said of each.
        resize: How pictures become its images, as PoisonDataModule takes it; None if that is not said.
        notes: What is done otherwise than by its processor, a line each.
    """

    model: dict[str, Any]
    class_names: tuple[str, ...]
    resize: str | None
    notes: tuple[str, ...]


def describe(folder: Folder, option: Given) -> Description:
    """What a folder says of its network.

    Args:
        folder: Its files.
        option: The parameter that named it, for messages.

    Raises:
        InputError: If it names code, no network that is known, or images that cannot be prepared; or if the library is
            missing that makes the network.
    """
    for name in CODE:
        if folder.config.get(name):
            raise InputError(*option, f"refused, its {CONFIG} has {name}, which can have other code run")
    try:
        # Folders of transformers can have both: it has a class that wraps networks of timm.
        return _of_timm(folder, option) if "architecture" in folder.config else _of_transformers(folder, option)
    except UnknownPreparationError as error:
        raise InputError(*option, f"its processor cannot be followed: {error}") from error


def _of_transformers(folder: Folder, option: Given) -> Description:
    library("transformers", option)
    kind = folder.config["model_type"]
    names = network_names(kind) if isinstance(kind, str) else ()
    if not names:
        raise InputError(*option, f"model_type {str(kind)[:80]!r} is no image classifier of transformers")
    given = folder.config.get("architectures")
    made = [name for name in given if name in names] if isinstance(given, list) else []
    if isinstance(given, list) and given and not made:
        raise InputError(*option, f"holds {str(given[0])[:80]}, no image classifier; expected {names[0]}")
    kwargs = _own_entries(kind, folder.config) | ({"architectures": made} if made else {})
    labels = folder.config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else folder.config.get("num_labels", 2)
    preparation = of_transformers(folder.processor, kind) if folder.processor else Preparation()
    size = kwargs.get("image_size")
    size = size[0] if isinstance(size, (list, tuple)) and len({*map(str, size)}) == 1 else size
    # Convolutions take images of any size: what the processor makes is right, whatever the description says.
    size = preparation.image_size or size
    return _described(f"transformers/{kind}", kwargs, count, size, preparation, labels)


def _of_timm(folder: Folder, option: Given) -> Description:
    library("timm", option)
    import timm

    config = folder.config
    arch = config["architecture"]
    if not isinstance(arch, str) or not timm.is_model(arch):
        raise InputError(*option, f"architecture {str(arch)[:80]!r} is no network of timm")
    kwargs = config.get("model_args") or {}
    if not isinstance(kwargs, dict):
        raise InputError(*option, "its model_args are no JSON object")
    # These read files, or make something other than a classifier.
    taken = {*inspect.signature(timm.create_model).parameters, "features_only", "out_indices", "num_classes"}
    for name in kwargs:
        if name in taken or name.startswith("pretrained"):
            raise InputError(*option, f"its model_args have {name[:80]!r}, which a file does not decide")
    if isinstance(pool := config.get("global_pool"), str) and pool:
        kwargs = {"global_pool": pool} | kwargs
    said = config.get("pretrained_cfg")
    said = said if isinstance(said, dict) else {}
    preparation = of_timm(said)
    labels = config.get("label_names", said.get("label_names"))
    names = dict(enumerate(labels)) if isinstance(labels, list) else config.get("id2label")
    count = config.get("num_classes", said.get("num_classes", len(names) if isinstance(names, dict) else None))
    return _described(f"timm/{arch}", kwargs, count, preparation.image_size, preparation, names)


def _described(
    arch: str, kwargs: Mapping[str, Any], count: Any, size: Any, prepared: Preparation, labels: Any
) -> Description:
    said = {
        "arch": arch,
        "arch_kwargs": dict(kwargs) or None,
        "num_classes": count,
        "image_size": size,
        "mean": prepared.mean,
        "std": prepared.std,
    }
    model = {name: value for name, value in said.items() if value is not None}
    resize = None if prepared.resize is None else str(prepared.resize)
    return Description(model, names_of(labels), resize, () if prepared.note is None else (prepared.note,))


def _own_entries(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that describe layers: those that the class of the description declares beyond every network's."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    def own(described: Any, entries: Mapping[str, Any]) -> dict[str, Any]:
        usual = {field.name for field in fields(PreTrainedConfig)}
        known = {field.name for field in fields(described)} | {*described.attribute_map}
        inner = {*described.sub_configs}
        kept = {name: value for name, value in entries.items() if name in known - usual - inner and value is not None}
        parts = {name: entries[name] for name in PARTS if name in inner and isinstance(entries.get(name), dict)}
        return kept | {name: own(described.sub_configs[name], part) for name, part in parts.items()}

    return own(CONFIG_MAPPING[kind], config)


def names_of(labels: Any) -> tuple[str, ...]:
    """The names of the classes in order.

    Args:
        labels: From their numbers to their names.

    Returns:
        Empty if one has no name, or all have the names that transformers gives where nobody does.
    """
    if not isinstance(labels, dict):
        return ()
    named = {str(number): name for number, name in labels.items()}
    names = [named.get(str(number)) for number in range(len(named))]
    if not all(isinstance(name, str) for name in names) or names == [f"LABEL_{n}" for n in range(len(names))]:
        return ()
    return tuple(str(name)[:LONGEST_NAME] for name in names)
