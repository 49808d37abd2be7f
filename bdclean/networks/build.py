"""Building networks by name: of the backdoor literature, torchvision, timm, transformers, or a user's class."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torchvision import models

from bdclean import first_line, hub
from bdclean.errors import Given, InputError
from bdclean.networks.cifar import FIXED, NETWORKS
from bdclean.networks.outputs import find_tensor, noise
from bdclean.networks.probe import in_eval_mode
from bdclean.networks.stages import LAYERS
from bdclean.registry import no_network
from bdclean.suggestions import suggestion

SMALL_IMAGE = 64
"""Largest image size, in pixels, for which a torchvision network gets a stem of stride 1."""

Stem = Literal["photo", "small"]
"""The first layers of a network: `photo` for images of hundreds of pixels, `small` for tens of pixels."""


def channels_of(network: nn.Module, image_size: int) -> int:
    """Number of channels of a network's images, 1 or 3: from its first convolution, or else by trial."""
    convolutions = (part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d))
    found = next((channels for channels in convolutions if channels in (1, 3)), None)
    if found is not None:
        return found
    images = noise(3, image_size)
    try:
        with torch.no_grad(), in_eval_mode(network):
            network(images.to(next(network.parameters(), images)))
    except Exception:  # a user's network can raise any error
        return 1
    return 3


def known_architectures() -> list[str]:
    """Names of the networks that `recognise` knows."""
    return sorted([*NETWORKS, *models.list_models(module=models)])


def is_own_class(arch: str) -> bool:
    """Whether a name is the import path of a user's class."""
    return "." in arch and not has_library(arch)


def has_library(arch: str) -> bool:
    """Whether a name is a network of timm or transformers."""
    return arch.startswith("timm/") or hub.is_transformers(arch)


def input_channels(arch: str) -> int:
    """Number of channels of a known network's images."""
    return FIXED[arch][0] if arch in FIXED else 3


def usual_size(arch: str, stem: Stem | None) -> int:
    """Default height and width of a known network's images, in pixels."""
    if arch in FIXED:
        return FIXED[arch][1]
    if arch in NETWORKS or stem == "small":
        return 32
    if arch.startswith("timm/"):
        import timm

        config = timm.get_pretrained_cfg(arch.removeprefix("timm/"))
        return int(config.input_size[-1]) if config is not None else 224
    return 299 if arch == "inception_v3" else 224


def build_network(
    arch: str,
    num_classes: int,
    image_size: int,
    stem: Stem | None = None,
    arch_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a newly initialised network for a given image size and number of classes.

    Args:
        arch: One of `known_architectures()`, `timm/NAME`, `transformers/MODEL_TYPE`, or the import path of a user's
            class. Importing runs code, so an import path must never come from a checkpoint.
        num_classes: Number of logits. It is passed to a user's class that has an argument `num_classes`.
        image_size: Height and width of the images, in pixels.
        stem: `small` replaces the stem of a torchvision network by the usual one for CIFAR, 3x3 with stride 1 and
            without the pooling of residual networks; `photo` keeps it. By default `small` up to 64 pixels.
        arch_kwargs: Arguments of a user's class or a timm network, or entries of a transformers configuration.

    Returns:
        A module that maps normalised images (N, 3, image_size, image_size) to logits (N, num_classes).

    Raises:
        InputError: If the network is unknown, or does not accept images of this size.
    """
    if is_own_class(arch):
        return _imported(arch, num_classes, dict(arch_kwargs or {}))
    if arch_kwargs and not has_library(arch):
        raise InputError(
            "model.arch_kwargs",
            dict(arch_kwargs),
            f"{arch} takes no arguments; only your own classes and networks of timm and transformers do",
        )
    try:
        network = assemble(arch, num_classes, image_size, stem, arch_kwargs)
        # Meta tensors have shapes and no data, so the trial costs no computation.
        images = torch.empty(1, input_channels(arch), image_size, image_size, device="meta")
        logits = find_tensor(copy.deepcopy(network).to("meta").eval()(images), num_classes)[0]
        if logits.shape != (1, num_classes):
            raise RuntimeError(f"outputs {tuple(logits.shape)}")
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = first_line(error)
        raise InputError("model.arch", arch, f"does not take {image_size}x{image_size} images ({reason})") from error
    return network


def assemble(
    arch: str, num_classes: int, image_size: int, stem: Stem | None, arch_kwargs: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a network by a known name, without checking that it accepts images of this size.

    The arguments are those of `build_network`.
    """
    if arch in NETWORKS:
        return NETWORKS[arch](num_classes)
    if arch.startswith("timm/"):
        return _timm(arch, num_classes, image_size, arch_kwargs or {})
    if hub.is_transformers(arch):
        return hub.build(hub.model_type(arch), arch_kwargs or {}, num_classes, image_size, Given("model.arch", arch))
    return _torchvision(arch, num_classes, image_size, stem)


def _imported(arch: str, num_classes: int, kwargs: dict[str, Any]) -> nn.Module:
    module, _, name = arch.rpartition(".")
    if os.getcwd() not in sys.path:
        # `python script.py` adds the script's folder to the path; the installed `bdclean` adds its own instead.
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a user's module can raise any error
        raise InputError("model.arch", arch, f"cannot be imported ({type(error).__name__}: {error})") from error
    try:
        arguments = inspect.signature(make).parameters
        if "num_classes" in arguments or any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in arguments.values()
        ):
            kwargs = {"num_classes": num_classes, **kwargs}
        network = make(**kwargs)
    except (Exception, SystemExit) as error:
        raise InputError(
            "model.arch", arch, f"cannot be made ({type(error).__name__}: {error})", Given("model.arch_kwargs", kwargs)
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError("model.arch", arch, f"makes a {type(network).__name__}, not a torch.nn.Module")
    return network


def _timm(arch: str, num_classes: int, image_size: int, kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError("model.arch", arch, 'needs timm: pip install "bdclean[timm]"') from error
    name = arch.removeprefix("timm/")
    # For unknown names timm reads files and contacts hubs.
    if not timm.is_model(name):
        raise InputError("model.arch", arch, f"timm has no such network{suggestion(name, timm.list_models())}")
    config = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, **(sized | dict(kwargs))
        )
    except (TypeError, KeyError) as error:
        raise InputError("model.arch", arch, f"cannot be made of {dict(kwargs)} ({first_line(error)})") from error
    return network


def _torchvision(arch: str, num_classes: int, image_size: int, stem: Stem | None) -> nn.Module:
    if arch not in models.list_models(module=models):
        raise no_network(arch, known_architectures())
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if arch in ("googlenet", "inception_v3"):
        # With the defaults, the output in training is a tuple, and initialisation takes minutes.
        options |= {"aux_logits": False, "init_weights": False}
    if arch.startswith("vit_"):
        return models.get_model(arch, image_size=image_size, **options)
    network = models.get_model(arch, **options)
    if stem == "small" or (stem is None and image_size <= SMALL_IMAGE):
        _small_stem(network)
        if isinstance(network, models.VGG):
            # Five poolings reduce 32 pixels to one: the original classifier for 7x7 would get 49 copies of it.
            network.avgpool = nn.AdaptiveAvgPool2d(1)
            network.classifier = nn.Sequential(nn.Linear(512, num_classes))
    return network


def _small_stem(network: nn.Module) -> None:
    """Replace a stem by a 3x3 convolution of stride 1 and remove `maxpool`, unless the stem cuts patches."""
    name, stem = next((n, m) for n, m in network.named_modules() if isinstance(m, LAYERS))
    if not isinstance(stem, nn.Conv2d) or stem.stride == (1, 1) or stem.kernel_size == stem.stride:
        return
    parent = network.get_submodule(name.rpartition(".")[0])
    setattr(
        parent,
        name.rpartition(".")[2],
        nn.Conv2d(stem.in_channels, stem.out_channels, 3, 1, 1, bias=stem.bias is not None),
    )
    if isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        network.maxpool = nn.Identity()
