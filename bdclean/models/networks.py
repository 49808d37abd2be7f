"""Networks by name: this field's small ones, every classification network of torchvision, timm's, the user's own."""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from bdclean import InputError, first_line
from bdclean.models.cifar import FIXED, NETWORKS
from bdclean.models.outputs import noise
from bdclean.models.probe import in_eval_mode
from bdclean.models.stages import LAYERS
from bdclean.registry import no_network

LARGEST_INPUT = 1e6
"""Normalised images with larger numbers than this one are a mistake: networks take some hundred at most."""
LARGEST_STD = 5.0
"""Larger ones are meant for images in [0, 255], where they are about 60."""
SMALL_IMAGE = 64
"""Up to this size, in pixels, a network made for photographs gets a stem of stride 1."""

Stem = Literal["photo", "small"]
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # Most repositories on traffic signs; BackdoorBench does not normalise them.
    "gtsrb": ((0.3337, 0.3064, 0.3171), (0.2672, 0.2564, 0.2629)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    # The same for all channels, of which a network may take one or three.
    "mnist": ((0.1307,), (0.3081,)),
    "half": ((0.5,), (0.5,)),
    "byte": ((0.0,), (1 / 255,)),
    "none": ((0.0,), (1.0,)),
}
"""Mean and standard deviation of the channels, by the name that `--model.mean` takes: `byte` is for networks that take
images in [0, 255], `half` for those that take [-1, 1], `none` for those that take [0, 1]."""

Moments = float | Sequence[float] | str | None
"""A mean or a standard deviation as the user gives it: a number for all channels, one each, or a known name."""


class Normalize(nn.Module):
    """(x - mean) / std per channel: the first layer of every classifier, so that triggers live in pixel space.

    With one number for mean and std images become grey first. The numbers are settings, not weights: they are not part
    of the `state_dict`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W) images in [0, 1]."""
        if self.mean.shape[1] == 1 and images.shape[1] > 1:
            images = images.mean(1, keepdim=True)
        # For each pixel, in the images' layout: numbers that are there three at a time are worked off three at a time.
        behind = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if behind else torch.contiguous_format
        mean, std = (
            value.expand(-1, -1, *images.shape[2:]).contiguous(memory_format=layout) for value in (self.mean, self.std)
        )
        return (images - mean).div_(std)


def normalization(mean: Moments, std: Moments, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, from `--model.mean` and `--model.std`.

    Args:
        mean: A number for all channels, a number for each, or a name of `NORMALIZATIONS`, which stands for both.
        std: The same.
        channels: How many channels the images have that the network takes.

    Raises:
        InputError: If they say nothing, contradict each other, or cannot be.
    """
    known = ", ".join(NORMALIZATIONS)
    given = f"--model.mean {mean} --model.std {std}"
    names = {value for value in (mean, std) if isinstance(value, str)}
    if names:
        for name in sorted(names - {*NORMALIZATIONS}):
            close = difflib.get_close_matches(name, NORMALIZATIONS, 1)
            hint = f"did you mean {close[0]}? There" if close else "there"
            raise InputError(f"--model.mean {name}: no such normalisation; {hint} are {known}; or give numbers")
        name = names.pop()
        if names or not all(value in (None, name) for value in (mean, std)):
            raise InputError(f"{given}: one name stands for both; it goes with no numbers, and with no other name")
        mean, std = NORMALIZATIONS[name]
    if mean is None and std is None:
        raise InputError(
            f"--model.mean: needed, as nothing says how the network's images are normalised: {known}; or a number for "
            "each channel or for all of them, with --model.std"
        )
    if mean is None:
        raise InputError(f"--model.mean: needed beside --model.std {std}")
    if std is None:
        raise InputError(f"--model.std: needed beside --model.mean {mean}")
    assert not isinstance(mean, str)
    assert not isinstance(std, str)
    means, stds = (_each(values, channels) for values in (mean, std))
    if len(means) != channels or len(stds) != channels:
        raise InputError(
            f"{given}: the network takes {'grey' if channels == 1 else 'colour'} images, of {channels} channels"
        )
    # In the precision that they are used in: 1e-45 is 0 there, and 1e308 infinite.
    numbers = torch.tensor([means, stds])
    if not numbers.isfinite().all() or numbers[1].min() <= 0:
        raise InputError(f"{given}: must be finite numbers, and the std above 0, in single precision")
    if numbers[0].max() > 1 or numbers[1].max() > LARGEST_STD:
        raise InputError(f"{given}: images are in [0, 1], so divide both by 255; `byte` is for networks of [0, 255]")
    if (numbers[0].abs().clamp(min=1) / numbers[1]).max() > LARGEST_INPUT:
        raise InputError(f"{given}: would make inputs of the network larger than {LARGEST_INPUT:g}")
    return means, stds


def _each(values: float | Sequence[float], channels: int) -> list[float]:
    """One number a channel."""
    numbers = [values] if isinstance(values, (int, float)) else list(values)
    return [float(value) for value in (numbers * channels if len(numbers) == 1 else numbers)]


def channels_of(network: nn.Module, image_size: int) -> int:
    """How many channels the images have that a network takes, 1 or 3: from its first convolution, or by trial."""
    convolutions = (part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d))
    found = next((channels for channels in convolutions if channels in (1, 3)), None)
    if found is not None:
        return found
    images = noise(3, image_size)
    try:
        with torch.no_grad(), in_eval_mode(network):
            network(images.to(next(network.parameters(), images)))
    except Exception:  # a network can fail in any way
        return 1
    return 3


def known_architectures() -> list[str]:
    """The names of the networks that can be recognised."""
    return sorted([*NETWORKS, *models.list_models(module=models)])


def is_own_class(arch: str) -> bool:
    """Whether a name is that of a class of the user's, to be imported."""
    return "." in arch and not arch.startswith("timm/")


def input_channels(arch: str) -> int:
    """How many channels the images of a known network have."""
    return FIXED[arch][0] if arch in FIXED else 3


def usual_size(arch: str, stem: Stem | None) -> int:
    """Height and width of the images that a known network is made for, in pixels."""
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
    """Build a network with fresh weights, fitted to the size of the images and the number of classes.

    Args:
        arch: One of `known_architectures()`, `timm/NAME`, or the import path of a class of the user's: that is code,
            and must never come from a checkpoint.
        num_classes: Width of the answer. A class of the user's gets it if it takes an argument of that name.
        image_size: Height and width of the images, in pixels.
        stem: `small` gives a network of torchvision the stem that is usual for CIFAR, 3x3 with stride 1 and without
            the residual networks' pooling after it, `photo` leaves it as it is. By default `small` up to 64 pixels.
        arch_kwargs: Arguments of a class of the user's.

    Returns:
        A module from normalised images (N, 3, image_size, image_size) to logits (N, num_classes).

    Raises:
        InputError: If there is no such network, or it does not take images of that size.
    """
    if is_own_class(arch):
        return _own(arch, num_classes, dict(arch_kwargs or {}))
    if arch_kwargs:
        raise InputError(f"--model.arch_kwargs {dict(arch_kwargs)}: only a class of your own takes any, not {arch}")
    try:
        network = assemble(arch, num_classes, image_size, stem)
        # Meta tensors have shapes and no data: the trial costs no computation.
        images = torch.empty(1, input_channels(arch), image_size, image_size, device="meta")
        answer = copy.deepcopy(network).to("meta").eval()(images)
        if answer.shape != (1, num_classes):
            raise RuntimeError(f"answers {tuple(answer.shape)}")
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = first_line(error)
        raise InputError(f"--model.arch {arch}: does not take {image_size}x{image_size} images ({reason})") from error
    return network


def assemble(arch: str, num_classes: int, image_size: int, stem: Stem | None) -> nn.Module:
    """As `build_network`, for a known name, without trying whether the network takes such images."""
    if arch in NETWORKS:
        return NETWORKS[arch](num_classes)
    if arch.startswith("timm/"):
        return _timm(arch, num_classes, image_size)
    return _torchvision(arch, num_classes, image_size, stem)


def _own(arch: str, num_classes: int, kwargs: dict[str, Any]) -> nn.Module:
    module, _, name = arch.rpartition(".")
    if os.getcwd() not in sys.path:
        # As `python script.py` has it; the installed `bdclean` starts elsewhere.
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # somebody's module may fail in any way
        raise InputError(f"--model.arch {arch}: cannot be imported ({type(error).__name__}: {error})") from error
    try:
        taken = inspect.signature(make).parameters
        if "num_classes" in taken or any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            kwargs = {"num_classes": num_classes, **kwargs}
        network = make(**kwargs)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"--model.arch {arch} --model.arch_kwargs {kwargs}: cannot be made ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"--model.arch {arch}: makes a {type(network).__name__}, not a torch.nn.Module")
    return network


def _timm(arch: str, num_classes: int, image_size: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError(f'--model.arch {arch}: needs timm: pip install "bdclean[timm]"') from error
    name = arch.removeprefix("timm/")
    # Other names make timm read files and ask hubs.
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise InputError(f"--model.arch {arch}: timm has no such network{hint}")
    config = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **sized)
    return network


def _torchvision(arch: str, num_classes: int, image_size: int, stem: Stem | None) -> nn.Module:
    if arch not in models.list_models(module=models):
        raise InputError(no_network(arch, known_architectures()))
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if arch in ("googlenet", "inception_v3"):
        # Without them the answer in training is a tuple, and initialisation takes minutes.
        options |= {"aux_logits": False, "init_weights": False}
    if arch.startswith("vit_"):
        return models.get_model(arch, image_size=image_size, **options)
    network = models.get_model(arch, **options)
    if stem == "small" or (stem is None and image_size <= SMALL_IMAGE):
        _small_stem(network)
        if isinstance(network, models.VGG):
            # Five poolings leave one pixel of 32: the classifier made for 7x7 would see 49 copies of it.
            network.avgpool = nn.AdaptiveAvgPool2d(1)
            network.classifier = nn.Sequential(nn.Linear(512, num_classes))
    return network


def _small_stem(network: nn.Module) -> None:
    """Give a network a 3x3 stem of stride 1, unless it cuts patches, and no `maxpool`."""
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
