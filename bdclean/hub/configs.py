"""Translating the configuration of a network into plain arguments of this program, without running any code."""

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
"""Entries of a configuration that refer to other code, or to weights that are not plain numbers."""
PARTS = ("vision_config",)
"""Nested configurations of the image network, in a configuration of several networks."""
LONGEST_NAME = 200
"""Maximum length of a class name, in characters; longer names are cut."""


@dataclass(frozen=True)
class Description:
    """The network that a folder describes.

    Attributes:
        model: Arguments of a Suspect, unchecked.
        class_names: Names of the classes; empty unless all classes have one.
        resize: Resizing of images, an argument of PoisonDataModule; None if the processor does not contain it.
        notes: Differences from its processor, one line each.
    """

    model: dict[str, Any]
    class_names: tuple[str, ...]
    resize: str | None
    notes: tuple[str, ...]


def describe(folder: Folder, option: Given) -> Description:
    """Read the configuration of a folder.

    Args:
        folder: The files of the folder.
        option: The parameter that names the folder, for messages.

    Raises:
        InputError: If the configuration refers to code, its network or its image processing is not supported, or the
            library of the network is not installed.
    """
    for name in CODE:
        if folder.config.get(name):
            raise InputError(*option, f"refused, its {CONFIG} has {name}, which can run other code")
    try:
        # Folders of transformers can have both entries, because it has a wrapper class for timm networks.
        return _of_timm(folder, option) if "architecture" in folder.config else _of_transformers(folder, option)
    except UnknownPreparationError as error:
        raise InputError(*option, f"its processor is not supported: {error}") from error


def _of_transformers(folder: Folder, option: Given) -> Description:
    library("transformers", option)
    kind = folder.config["model_type"]
    names = network_names(kind) if isinstance(kind, str) else ()
    if not names:
        raise InputError(*option, f"model_type {str(kind)[:80]!r} is not an image classifier of transformers")
    given = folder.config.get("architectures")
    classes = [name for name in given if name in names] if isinstance(given, list) else []
    if isinstance(given, list) and given and not classes:
        raise InputError(*option, f"holds {str(given[0])[:80]}, no image classifier; expected {names[0]}")
    kwargs = _declared_entries(kind, folder.config) | ({"architectures": classes} if classes else {})
    labels = folder.config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else folder.config.get("num_labels", 2)
    preparation = of_transformers(folder.processor, kind) if folder.processor else Preparation()
    size = kwargs.get("image_size")
    size = size[0] if isinstance(size, (list, tuple)) and len({*map(str, size)}) == 1 else size
    # Convolutions take images of any size, so the processor's size takes precedence.
    size = preparation.image_size or size
    return _described(f"transformers/{kind}", kwargs, count, size, preparation, labels)


def _of_timm(folder: Folder, option: Given) -> Description:
    library("timm", option)
    import timm

    config = folder.config
    arch = config["architecture"]
    if not isinstance(arch, str) or not timm.is_model(arch):
        raise InputError(*option, f"architecture {str(arch)[:80]!r} is not a network of timm")
    kwargs = config.get("model_args") or {}
    if not isinstance(kwargs, dict):
        raise InputError(*option, "its model_args are not a JSON object")
    # These arguments read files, or make a network that is not a classifier.
    reserved = {*inspect.signature(timm.create_model).parameters, "features_only", "out_indices", "num_classes"}
    for name in kwargs:
        if name in reserved or name.startswith("pretrained"):
            raise InputError(*option, f"its model_args have {name[:80]!r}, which bdclean does not take from a file")
    if isinstance(pool := config.get("global_pool"), str) and pool:
        kwargs = {"global_pool": pool} | kwargs
    pretrained = config.get("pretrained_cfg")
    pretrained = pretrained if isinstance(pretrained, dict) else {}
    preparation = of_timm(pretrained)
    labels = config.get("label_names", pretrained.get("label_names"))
    names = dict(enumerate(labels)) if isinstance(labels, list) else config.get("id2label")
    count = config.get("num_classes", pretrained.get("num_classes", len(names) if isinstance(names, dict) else None))
    return _described(f"timm/{arch}", kwargs, count, preparation.image_size, preparation, names)


def _described(
    arch: str, kwargs: Mapping[str, Any], count: Any, size: Any, prepared: Preparation, labels: Any
) -> Description:
    arguments = {
        "arch": arch,
        "arch_kwargs": dict(kwargs) or None,
        "num_classes": count,
        "image_size": size,
        "mean": prepared.mean,
        "std": prepared.std,
    }
    model = {name: value for name, value in arguments.items() if value is not None}
    resize = None if prepared.resize is None else str(prepared.resize)
    return Description(model, names_of(labels), resize, () if prepared.note is None else (prepared.note,))


def _declared_entries(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that describe layers: those that the configuration's class adds to the common ones."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    def declared(described: Any, entries: Mapping[str, Any]) -> dict[str, Any]:
        common = {field.name for field in fields(PreTrainedConfig)}
        known = {field.name for field in fields(described)} | {*described.attribute_map}
        inner = {*described.sub_configs}
        kept = {name: value for name, value in entries.items() if name in known - common - inner and value is not None}
        parts = {name: entries[name] for name in PARTS if name in inner and isinstance(entries.get(name), dict)}
        return kept | {name: declared(described.sub_configs[name], part) for name, part in parts.items()}

    return declared(CONFIG_MAPPING[kind], config)


def names_of(labels: Any) -> tuple[str, ...]:
    """The names of the classes in order.

    Args:
        labels: A mapping of class numbers to names.

    Returns:
        The names; empty if a class has no name, or if all names are the defaults of transformers.
    """
    if not isinstance(labels, dict):
        return ()
    named = {str(number): name for number, name in labels.items()}
    names = [named.get(str(number)) for number in range(len(named))]
    if not all(isinstance(name, str) for name in names) or names == [f"LABEL_{n}" for n in range(len(names))]:
        return ()
    return tuple(str(name)[:LONGEST_NAME] for name in names)
