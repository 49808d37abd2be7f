"""A trained network, to be evaluated, scanned and cleansed."""

from __future__ import annotations

from typing import Any

from torch import nn

from bdclean import first_line
from bdclean.checkpoint import backdoorbench
from bdclean.errors import Given, InputError, within
from bdclean.modules.classifier import Classifier
from bdclean.networks import (
    Moments,
    Stem,
    build_network,
    channels_of,
    is_own_class,
    noise,
    normalization,
    outputs_of,
)
from bdclean.training import LARGEST_SIDE

SIZES = (32, 224, 28, 64, 96, 128, 160, 192, 256, 299, 384, 48)
"""Image sizes to try for a network, in pixels, the most common first."""


class Suspect(Classifier):
    """A trained network, to be measured, scanned and cleansed.

    Args:
        arch: Architecture: resnet18, preact_resnet18, cifar_resnet18, resnet20, wrn_16_1, vgg11_bn, mobilenet_v2, ...,
            any other classification network of torchvision, `timm/NAME`, `transformers/MODEL_TYPE`, or the import path
            of your own class, `my_package.my_module.MyNet`, which is imported. By default it is recognised from the
            weights, or read from the `config.json` beside them.
        arch_kwargs: Arguments of your own class, or of a timm network; entries of `config.json` for
            transformers. By default those in the checkpoint or in `config.json`.
        num_classes: Number of classes; by default as in the weights.
        image_size: Height and width of the images, in pixels; by default as in the checkpoint or the weights.
        stem: First layers of a torchvision network: `small` is a 3x3 convolution with stride 1, `photo` torchvision's.
            By default as in the weights.
        mean: Subtracted from the channels of an image in [0, 1]: one number for all channels, or one for each. Or a
            name for mean and std: `imagenet`, `cifar10`, `cifar100`, `gtsrb`, `mnist`, `clip`, `half` (0.5 and 0.5),
            `byte` (for inputs in [0, 255]), `none` (for inputs in [0, 1]). By default as in the checkpoint.
        std: Divides the channels after `mean` is subtracted: one number for all channels, or one for each. By
            default the std that belongs to `mean`, if a name or the checkpoint sets both.

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
                raise InputError(f"model.{name}", None, "needed: neither the checkpoint nor its weights determine it")
        assert arch is not None
        assert num_classes is not None
        assert image_size is not None
        within("model.num_classes", num_classes, 1)
        within("model.image_size", image_size, 1, LARGEST_SIDE)
        network = build_network(arch, num_classes, image_size, stem, arch_kwargs)
        means, stds = normalization(mean, std, channels_of(network, image_size))
        if is_own_class(arch):
            # The user's class may ignore `num_classes`. A network with a single logit is built with one class.
            counted = count_classes(network, image_size, len(means), Given("model.arch", arch), num_classes)
            num_classes = counted if num_classes > 1 else num_classes
        super().__init__(network, num_classes, image_size, means, stds, arch, stem, arch_kwargs)


def count_classes(
    network: nn.Module, image_size: int, channels: int, option: Given, expected: int | None = None
) -> int:
    """The number of classes of a network, from its outputs for noise. Its mode and batch statistics do not change.

    Args:
        network: The network.
        image_size: Height and width of its images, in pixels.
        channels: Number of channels of its images.
        option: The parameter of the network, for messages.
        expected: Expected number of classes, to choose among several output tensors.

    Raises:
        InputError: If the network does not accept such images, or its outputs are not those of a classifier.
    """
    try:
        return outputs_of(network, noise(channels, image_size), expected).num_classes
    except InputError as error:
        raise InputError(*option, error.reason) from error
    except Exception as error:  # a network can fail in any way
        reason = first_line(error)
        raise InputError(*option, f"does not take {image_size}x{image_size} images ({reason})") from error


def fitting_size(network: nn.Module, image_size: int | None, what: Given) -> int:
    """The image size that a network accepts, in pixels, found by trial.

    Args:
        network: The network.
        image_size: The preferred size, returned if the network accepts it.
        what: The parameter of the network, for messages.

    Raises:
        InputError: If the network accepts several sizes, or none of `SIZES`.
    """
    accepted: list[int] = []
    for size in SIZES if image_size is None else (image_size, *SIZES):
        try:
            count_classes(network, size, channels_of(network, size), what)
        except InputError:
            continue
        if size == image_size:
            return size
        accepted.append(size)
        if len(accepted) > 1:
            raise InputError(
                "model.image_size", None, f"needed, as {what} takes images of {accepted[0]}, {accepted[1]}, ... pixels"
            )
    if not accepted:
        # Try once more, to raise the error with its reason.
        size = image_size or SIZES[0]
        count_classes(network, size, channels_of(network, size), what)
    return accepted[0]


def describe(model: Classifier, recognised: bool) -> str:
    """One line about a network that was read from a checkpoint."""
    settings, origin = model.hparams, model.origin
    assert origin is not None
    mean, std = settings["mean"], settings["std"]
    identity = mean == [0.0] * len(mean) and std == [1.0] * len(std)
    norm = "not normalised" if identity else f"normalised by mean {mean} and std {std}"
    where = f" under {origin.place!r}" if origin.place else ""
    stripped = f" without {model.prefix!r}" if model.prefix else ""
    others = sum(not name.startswith(model.prefix) for name in origin.weights)
    notes = f"; {others} more do not belong to the network" if others else ""
    if backdoorbench.wrote(origin.content) and origin.triggered is None:
        notes += "; its triggered test images cannot be read"
    if outputs := model.outputs.describe():
        notes += f"; {outputs}"
    return (
        f"{origin.path}: {settings['arch']}{' (recognised from the weights)' if recognised else ''}, "
        f"{model.num_classes} classes, {model.image_size}x{model.image_size} images, {norm}; "
        f"{len(origin.weights) - others} tensors{where}{stripped}{notes}"
    )
