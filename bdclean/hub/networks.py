"""Building networks of transformers from plain values and tensors, without reading files or downloading."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import CRITICAL
from typing import Any, cast

import torch
from torch import Tensor, nn

from bdclean import first_ten
from bdclean.errors import Given, InputError
from bdclean.hub.bounds import TooLargeError, bounded

PREFIX = "transformers/"
"""Prefix of a `model_type` in the name of a network."""


def is_transformers(arch: str) -> bool:
    """Whether a name is a network of transformers."""
    return arch.startswith(PREFIX)


def model_type(arch: str) -> str:
    """The `model_type` in the name of a transformers network."""
    return arch.removeprefix(PREFIX)


def library(name: str, option: Given) -> None:
    """Check that a library is installed.

    Raises:
        InputError: If it is not installed.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise InputError(*option, f'needs {name}: pip install "bdclean[hf]"') from error


def network_names(kind: str) -> tuple[str, ...]:
    """The image classifiers of transformers for a `model_type`; empty if the type is unknown."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    names = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(kind, ())
    return (names,) if isinstance(names, str) else tuple(names)


def build(kind: str, kwargs: Mapping[str, Any], num_classes: int, image_size: int, option: Given) -> nn.Module:
    """Build a newly initialised network of transformers.

    Args:
        kind: Its `model_type`.
        kwargs: Entries of its configuration.
        num_classes: Number of logits.
        image_size: Height and width of its images, in pixels, if the configuration does not contain it.
        option: The parameter that names the network, for messages.

    Raises:
        InputError: If the network is unknown, or cannot be built from these entries.
    """
    library("transformers", option)
    from transformers import AutoModelForImageClassification as Auto

    with _quiet():
        try:
            config = _config(kind, kwargs, num_classes, image_size)
            network: nn.Module = cast(Any, Auto).from_config(config, dtype=torch.float32)
        except (TooLargeError, MemoryError):
            raise
        except Exception as error:  # a wrong configuration can raise any error
            raise InputError(*option, f"cannot be made ({_reason(error)})") from error
    return network


def loaded(
    kind: str,
    kwargs: Mapping[str, Any],
    num_classes: int,
    image_size: int,
    weights: Mapping[str, Tensor],
    option: Given,
) -> tuple[nn.Module, list[str]]:
    """Build a network of transformers with given weights, whose names may be those of an earlier version.

    Args:
        kind: Its `model_type`.
        kwargs: Entries of its configuration.
        num_classes: Number of logits.
        image_size: Height and width of its images, in pixels, if the configuration does not contain it.
        weights: Tensors of a file, by their names there.
        option: The parameter that names the file, for messages.

    Returns:
        The network in single precision, and the names of surplus tensors.

    Raises:
        InputError: If the network cannot be built, or tensors are missing or have wrong shapes.
    """
    with bounded(weights), torch.device("meta"):
        try:
            empty = build(kind, kwargs, num_classes, image_size, option)
        except TooLargeError as error:
            raise InputError(*option, f"{error}") from error
    with _quiet():
        try:
            network, info = type(empty).from_pretrained(  # type: ignore[attr-defined]  # all classes have it
                None,
                config=empty.config,
                state_dict=dict(weights),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                dtype=torch.float32,
            )
        except Exception as error:  # conversions of tensors with wrong shapes can raise any error
            raise InputError(*option, f"does not fit {PREFIX}{kind} ({_reason(error)})") from error
    missing = [f"missing {name}" for name in sorted(info["missing_keys"]) if not name.endswith("num_batches_tracked")]
    shaped = [f"{name} is {tuple(there)} instead of {tuple(here)}" for name, there, here in info["mismatched_keys"]]
    surplus = sorted(info["unexpected_keys"])
    if len(surplus) > len(network.state_dict()):
        missing += [f"surplus {name}" for name in surplus]
    if wrong := [*shaped, *missing]:
        raise InputError(*option, f"does not fit {PREFIX}{kind}, as its config.json describes it: {first_ten(wrong)}")
    return network.eval(), surplus


def _reason(error: Exception) -> str:
    """The message of an error, shortened for a part of a line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _config(kind: str, kwargs: Mapping[str, Any], num_classes: int, image_size: int) -> Any:
    """The configuration of a network, built here so that no entry of a file becomes an option for loading."""
    from transformers import CONFIG_MAPPING

    if not network_names(kind):
        raise ValueError(f"{kind!r} is not an image classifier of transformers")
    entries = dict(kwargs)
    architectures = entries.pop("architectures", list(network_names(kind)[:1]))
    config: Any = CONFIG_MAPPING[kind](**entries | {"num_labels": num_classes})
    config.architectures = architectures
    if "image_size" not in entries and getattr(config, "image_size", None) is not None:
        config.image_size = image_size
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Disable messages and progress bars of transformers within the context."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
