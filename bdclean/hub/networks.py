"""The networks of transformers, from plain values and tensors: never from a file, and never from the network."""

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
"""Before the `model_type` of a description, in the name of a network."""


def is_transformers(arch: str) -> bool:
    """Whether the name of a network is one of transformers'."""
    return arch.startswith(PREFIX)


def model_type(arch: str) -> str:
    """The `model_type` in the name of a network of transformers."""
    return arch.removeprefix(PREFIX)


def library(name: str, option: Given) -> None:
    """Refuse what a missing library makes.

    Raises:
        InputError: If it is missing.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise InputError(*option, f'needs {name}: pip install "bdclean[hf]"') from error


def network_names(kind: str) -> tuple[str, ...]:
    """The classes of transformers that classify images, for a `model_type`; none if it is unknown."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    names = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(kind, ())
    return (names,) if isinstance(names, str) else tuple(names)


def build(kind: str, kwargs: Mapping[str, Any], num_classes: int, image_size: int, option: Given) -> nn.Module:
    """A network of transformers with fresh weights.

    Args:
        kind: Its `model_type`.
        kwargs: Entries of its description.
        num_classes: Width of its output.
        image_size: Height and width of its images, in pixels, where the description does not say it.
        option: The parameter that named the network, for messages.

    Raises:
        InputError: If there is no such network, or none can be made of these entries.
    """
    library("transformers", option)
    from transformers import AutoModelForImageClassification as Auto

    with _quiet():
        try:
            config = _config(kind, kwargs, num_classes, image_size)
            network: nn.Module = cast(Any, Auto).from_config(config, dtype=torch.float32)
        except (TooLargeError, MemoryError):
            raise
        except Exception as error:  # what a description can make go wrong is without number
            raise InputError(*option, f"cannot be made ({_told(error)})") from error
    return network


def loaded(
    kind: str,
    kwargs: Mapping[str, Any],
    num_classes: int,
    image_size: int,
    weights: Mapping[str, Tensor],
    option: Given,
) -> tuple[nn.Module, list[str]]:
    """A network of transformers with given weights, which may have the names of an earlier version.

    Args:
        kind: As in `build`.
        kwargs: As in `build`.
        num_classes: As in `build`.
        image_size: As in `build`.
        weights: The tensors of a file, by the names that they have there.
        option: The parameter that named the file, for messages.

    Returns:
        The network in single precision, and the names of the tensors that it has no place for.

    Raises:
        InputError: As in `build`, or if tensors are missing, or have other shapes than the network's.
    """
    with bounded(weights), torch.device("meta"):
        try:
            made = build(kind, kwargs, num_classes, image_size, option)
        except TooLargeError as error:
            raise InputError(*option, f"{error}") from error
    with _quiet():
        try:
            network, info = type(made).from_pretrained(  # type: ignore[attr-defined]  # all of them have it
                None,
                config=made.config,
                state_dict=dict(weights),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                dtype=torch.float32,
            )
        except Exception as error:  # tensors of any shape can make conversions fail in any way
            raise InputError(*option, f"does not fit {PREFIX}{kind} ({_told(error)})") from error
    missing = [f"missing {name}" for name in sorted(info["missing_keys"]) if not name.endswith("num_batches_tracked")]
    shaped = [f"{name} is {tuple(there)} instead of {tuple(here)}" for name, there, here in info["mismatched_keys"]]
    surplus = sorted(info["unexpected_keys"])
    if len(surplus) > len(network.state_dict()):
        missing += [f"surplus {name}" for name in surplus]
    if wrong := [*shaped, *missing]:
        raise InputError(*option, f"does not fit {PREFIX}{kind}, as its config.json describes it: {first_ten(wrong)}")
    return network.eval(), surplus


def _told(error: Exception) -> str:
    """What an error says, in part of a line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _config(kind: str, kwargs: Mapping[str, Any], num_classes: int, image_size: int) -> Any:
    """The description of a network. It is made here, so that no entry of a file is taken for an option of loading."""
    from transformers import CONFIG_MAPPING

    if not network_names(kind):
        raise ValueError(f"{kind!r} is no image classifier of transformers")
    entries = dict(kwargs)
    architectures = entries.pop("architectures", list(network_names(kind)[:1]))
    config: Any = CONFIG_MAPPING[kind](**entries | {"num_labels": num_classes})
    config.architectures = architectures
    if "image_size" not in entries and getattr(config, "image_size", None) is not None:
        config.image_size = image_size
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it transformers reports nothing and draws no bars."""
    from transformers.utils import logging as theirs

    logging: Any = theirs
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
