"""A network that somebody trained, to be judged and cleansed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bdclean import first_line, first_ten
from bdclean.checkpoint import Checkpoint, backdoorbench
from bdclean.errors import Given, InputError, within
from bdclean.hub import is_transformers
from bdclean.models import (
    Moments,
    Stem,
    WithoutData,
    best_prefix,
    build_network,
    channels_of,
    closest,
    has_library,
    is_own_class,
    last_rows,
    noise,
    normalization,
    of_transformers,
    outputs_of,
    recognise,
    recognise_timm,
    shapes_of,
    usual_size,
)
from bdclean.modules.classifier import Classifier
from bdclean.modules.described import described
from bdclean.training import LARGEST_SIDE

SIZES = (32, 224, 28, 64, 96, 128, 160, 192, 256, 299, 384, 48)
"""Sizes of images that networks are made for, usual ones first."""


class Suspect(Classifier):
    """A trained network, to be measured, scanned and cleansed.

    Args:
        arch: Architecture: resnet18, preact_resnet18, cifar_resnet18, resnet20, wrn_16_1, vgg11_bn, mobilenet_v2, ...,
            any other classification network of torchvision, `timm/NAME`, `transformers/MODEL_TYPE`, or the import path
            of your own class, `my_package.my_module.MyNet`, which is imported. By default it is recognised from the
            weights, or read from the `config.json` beside them.
        arch_kwargs: Arguments of your own class, or of a timm network; entries of `config.json` for transformers.
        num_classes: Number of classes; by default as in the weights.
        image_size: Height and width of the images, in pixels; by default as in the checkpoint or the weights.
        stem: First layers of a torchvision network: `small` is a 3x3 convolution with stride 1, `photo` torchvision's.
            By default as in the weights.
        mean: Subtracted from the channels of an image in [0, 1]: one number for all channels, or one for each. Or a
            name for mean and std: `imagenet`, `cifar10`, `cifar100`, `gtsrb`, `mnist`, `clip`, `half` (0.5 and 0.5),
            `byte` (for inputs in [0, 255]), `none` (for inputs in [0, 1]). By default as in the checkpoint.
        std: Divides the channels after `mean` is subtracted: one number for all channels, or one for each.

    Raises:
        InputError: If an argument is missing or unknown, or the network cannot be built.
    """

    def __init__(
        self,
        arch: str | None = None,
        arch_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        image_size: int | None = None,
        stem: Stem | None = None,
        mean: Moments = None,
        std: Moments = None,
    ) -> None:
        for name, value in (("arch", arch), ("num_classes", num_classes), ("image_size", image_size)):
            if value is None:
                raise InputError(f"model.{name}", None, "needed, as neither the checkpoint nor its weights say it")
        assert arch is not None
        assert num_classes is not None
        assert image_size is not None
        within("model.num_classes", num_classes, 1)
        within("model.image_size", image_size, 1, LARGEST_SIDE)
        network = build_network(arch, num_classes, image_size, stem, arch_kwargs)
        means, stds = normalization(mean, std, channels_of(network, image_size))
        if is_own_class(arch):
            # The class may have a mind of its own. Where one number stands for two classes, it is built with one.
            counted = count_classes(network, image_size, len(means), Given("model.arch", arch), num_classes)
            num_classes = counted if num_classes > 1 else num_classes
        super().__init__(network, num_classes, image_size, means, stds, arch, stem, arch_kwargs)


def count_classes(
    network: nn.Module, image_size: int, channels: int, option: Given, expected: int | None = None
) -> int:
    """How many classes a network tells apart: tried with noise images. Its mode and statistics stay.

    Args:
        network: The network.
        image_size: Height and width of its images, in pixels.
        channels: Of its images.
        option: The parameter that brought it, for messages.
        expected: How many it should be, where the network outputs several tensors.

    Raises:
        InputError: If it does not take such images, or its outputs are not those of a classifier.
    """
    try:
        return outputs_of(network, noise(channels, image_size), expected).num_classes
    except InputError as error:
        raise InputError(*option, error.reason) from error
    except Exception as error:  # a network can fail in any way
        reason = first_line(error)
        raise InputError(*option, f"does not take {image_size}x{image_size} images ({reason})") from error


def identify(
    checkpoint: Checkpoint, given: Mapping[str, Any], image_size: int | None, parameter: str = "ckpt"
) -> dict[str, Any]:
    """Find out what a checkpoint's network is.

    Args:
        checkpoint: What was read.
        given: Arguments of a Suspect as the user gives them, with None for what is not given.
        image_size: Height and width of the images at hand, in pixels, if they have one.
        parameter: The parameter that named the checkpoint, for messages.

    Returns:
        The arguments of a Suspect, with all that the checkpoint or its weights say.

    Raises:
        InputError: If the network is none that is known, and was not given; or takes images of more than one size.
    """
    known = checkpoint.model | {name: value for name, value in given.items() if value is not None}
    if isinstance(known.get("mean"), str) and "std" in known and known["std"] == checkpoint.model.get("std"):
        # A name stands for both, and for what the checkpoint says too.
        known["std"] = None
    option = Given(parameter, checkpoint.path)
    arch = known.get("arch")
    if arch is not None and is_own_class(arch):
        if given.get("arch") is None:
            raise InputError(
                *option, f"its network is {arch}, code of unknown origin: {Given('model.arch', arch)}, if you trust it"
            )
        return _identified_class(arch, known, checkpoint, image_size)
    if arch is not None and has_library(arch) and (known.get("arch_kwargs") or is_transformers(arch)):
        return described(checkpoint, known, image_size, option)
    archs = None if arch is None else [arch]
    found = recognise(checkpoint.weights, archs, known.get("image_size"))
    if found is None and arch is None:
        if (name := of_transformers([*checkpoint.weights])) is not None:
            raise InputError(*option, f"a network of transformers ({name}): its config.json is needed beside it")
        found = recognise_timm(checkpoint.weights, option)
    if found is None:
        near, wrong = closest(checkpoint.weights)
        _, differences = closest(checkpoint.weights, archs)
        if arch is None:
            advice = f"{Given('model.arch', 'my_module.MyNet')}, the class that made it"
            if near is not None:
                advice = f"the closest is {near.arch} with {near.num_classes} classes: {first_ten(wrong)}"
            raise InputError("model.arch", None, f"needed, as {checkpoint.path} fits no known network; {advice}")
        closest_one = f"; the closest known network is {near.arch} with {near.num_classes} classes" if near else ""
        raise InputError(*option, f"does not fit {arch}: {first_ten(differences)}{closest_one}")
    classes = known.get("num_classes", found.num_classes)
    if classes != found.num_classes:
        raise InputError(
            *option, f"does not fit {found.arch} with {classes} classes: its weights are for {found.num_classes}"
        )
    size = found.image_size or usual_size(found.arch, found.stem)
    if "image_size" not in known and found.image_size is None and image_size not in (None, size):
        raise InputError(
            "model.image_size",
            None,
            f"needed, as {found.arch} takes images of many sizes, {size} pixels most often, and "
            f"these have {image_size}",
        )
    return {"arch": found.arch, "stem": found.stem, "num_classes": found.num_classes, "image_size": size} | known


def _identified_class(
    arch: str, known: dict[str, Any], checkpoint: Checkpoint, image_size: int | None
) -> dict[str, Any]:
    """As `identify`, of a class of the user's."""
    known.setdefault("num_classes", _classes_of(arch, known.get("arch_kwargs"), checkpoint))
    if (kwargs := checkpoint.model.get("arch_kwargs")) and kwargs == known.get("arch_kwargs"):
        # Without memory: a file can ask for layers of any size.
        with WithoutData():
            shapes = shapes_of(build_network(arch, known["num_classes"], 0, arch_kwargs=kwargs).state_dict())
        if wrong := best_prefix(shapes, shapes_of(checkpoint.weights))[1]:
            raise InputError(
                "ckpt", checkpoint.path, f"does not fit {arch} with {dict(kwargs)}, as it says: {first_ten(wrong)}"
            )
    if "image_size" not in known:
        network = build_network(arch, known["num_classes"], 0, arch_kwargs=known.get("arch_kwargs"))
        known["image_size"] = fitting_size(network, image_size, Given("model.arch", arch))
    return known


def _classes_of(arch: str, arch_kwargs: Mapping[str, Any] | None, checkpoint: Checkpoint) -> int:
    """How many classes make a class of the user's fit the weights: tried with each number of rows, the last first."""
    given = shapes_of(checkpoint.weights)
    rows = [shape[0] for shape in reversed(given.values()) if len(shape) == 2]
    for count in [*dict.fromkeys(rows)][:10]:
        with WithoutData():
            shapes = shapes_of(build_network(arch, count, 0, arch_kwargs=arch_kwargs).state_dict())
        if not best_prefix(shapes, given)[1]:
            return count
    return last_rows(given)


def fitting_size(network: nn.Module, image_size: int | None, what: Given) -> int:
    """The size of the images that a network takes, in pixels: found by trial.

    Args:
        network: The network.
        image_size: Used if the network takes it.
        what: The parameter that brought the network, for messages.

    Raises:
        InputError: If it takes several sizes, or none of the usual ones.
    """
    taken: list[int] = []
    for size in SIZES if image_size is None else (image_size, *SIZES):
        try:
            count_classes(network, size, channels_of(network, size), what)
        except InputError:
            continue
        if size == image_size:
            return size
        taken.append(size)
        if len(taken) > 1:
            raise InputError(
                "model.image_size", None, f"needed, as {what} takes images of {taken[0]}, {taken[1]}, ... pixels"
            )
    if not taken:
        # With the reason.
        size = image_size or SIZES[0]
        count_classes(network, size, channels_of(network, size), what)
    return taken[0]


def describe(model: Classifier, recognised: bool) -> str:
    """What was read, in a line."""
    said, origin = model.hparams, model.origin
    assert origin is not None
    identity = said["mean"] == [0.0] * len(said["mean"]) and said["std"] == [1.0] * len(said["std"])
    norm = "not normalised" if identity else f"normalised by mean {said['mean']} and std {said['std']}"
    where = f" under {origin.place!r}" if origin.place else ""
    stripped = f" without {model.prefix!r}" if model.prefix else ""
    others = sum(not name.startswith(model.prefix) for name in origin.weights)
    left = f"; {others} more are not the network's" if others else ""
    if backdoorbench.wrote(origin.content) and origin.triggered is None:
        left += "; its triggered test images cannot be read"
    if outputs := model.outputs.describe():
        left += f"; {outputs}"
    return (
        f"{origin.path}: {said['arch']}{' (recognised from the weights)' if recognised else ''}, "
        f"{model.num_classes} classes, {model.image_size}x{model.image_size} images, {norm}; "
        f"{len(origin.weights) - others} tensors{where}{stripped}{left}"
    )
