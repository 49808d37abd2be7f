"""Normalising images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bdclean.errors import Given, InputError
from bdclean.suggestions import suggestion

LARGEST_INPUT = 1e6
"""Largest plausible value of a normalised image: networks take a few hundred at most."""
LARGEST_STD = 5.0
"""Largest plausible std of images in [0, 1]; for images in [0, 255] it is about 60."""
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # Common in repositories on traffic signs; BackdoorBench does not normalise them.
    "gtsrb": ((0.3337, 0.3064, 0.3171), (0.2672, 0.2564, 0.2629)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    # One number for all channels: a network may take one or three.
    "mnist": ((0.1307,), (0.3081,)),
    "half": ((0.5,), (0.5,)),
    "byte": ((0.0,), (1 / 255,)),
    "none": ((0.0,), (1.0,)),
}
"""Mean and standard deviation of the channels, by their name for `--model.mean`: `byte` is for networks that take
images in [0, 255], `half` for [-1, 1], `none` for [0, 1]."""

Numbers = float | Sequence[float]
"""One number for all channels, or one each."""
Moments = Numbers | str | None
"""A mean or a standard deviation from the user: one number for all channels, one each, or a name."""


class Normalize(nn.Module):
    """(x - mean) / std per channel, the first layer of every classifier, so that triggers are in pixel space.

    With one number for mean and std, images are converted to grey first. The numbers are settings, not weights, and so
    not part of the `state_dict`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (N, C, H, W) in [0, 1]."""
        if self.mean.shape[1] == 1 and images.shape[1] > 1:
            images = images.mean(1, keepdim=True)
        # Expanded to each pixel in the layout of the images: broadcasting over three channels would not be vectorised.
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        mean, std = (
            value.expand(-1, -1, *images.shape[2:]).contiguous(memory_format=layout) for value in (self.mean, self.std)
        )
        return (images - mean).div_(std)


def normalization(mean: Moments, std: Moments, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, from `--model.mean` and `--model.std`.

    Args:
        mean: One number for all channels, one each, or a name in `NORMALIZATIONS`, which stands for both.
        std: Standard deviation, in the same units; one number, or one for each channel.
        channels: Number of channels of the network's images.

    Raises:
        InputError: If mean or std is missing, they contradict each other, or a value is impossible.
    """
    mean_and_std = Given("model.mean", mean), Given("model.std", std)
    named = {value for value in (mean, std) if isinstance(value, str)}
    numbers_given = _by_name(named, mean_and_std) if named else _numbers(mean, std)
    means, stds = (_each(values, channels) for values in numbers_given)
    if len(means) != channels or len(stds) != channels:
        raise _wrong(
            mean_and_std, f"the network takes {'grey' if channels == 1 else 'colour'} images, of {channels} channels"
        )
    # In the precision of the computation, where 1e-45 is 0 and 1e308 is infinite.
    numbers = torch.tensor([means, stds])
    if not numbers.isfinite().all() or numbers[1].min() <= 0:
        raise _wrong(mean_and_std, "must be finite numbers, and the std above 0, in single precision")
    if numbers[0].max() > 1 or numbers[1].max() > LARGEST_STD:
        raise _wrong(mean_and_std, "images are in [0, 1], so divide both by 255; `byte` is for networks of [0, 255]")
    if (numbers[0].abs().clamp(min=1) / numbers[1]).max() > LARGEST_INPUT:
        raise _wrong(mean_and_std, f"would make inputs of the network larger than {LARGEST_INPUT:g}")
    return means, stds


def _by_name(named: set[str], mean_and_std: tuple[Given, Given]) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation by name."""
    for name in sorted(named - {*NORMALIZATIONS}):
        listed = ", ".join(NORMALIZATIONS)
        close = suggestion(name, NORMALIZATIONS)
        hint = f"{close} There" if close else "; there"
        raise InputError("model.mean", name, f"no such normalisation{hint} are {listed}; or give numbers")
    name = named.pop()
    if named or not all(given.value in (None, name) for given in mean_and_std):
        raise _wrong(mean_and_std, "a name sets both; it cannot be combined with numbers or with another name")
    return NORMALIZATIONS[name]


def _numbers(mean: Moments, std: Moments) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation, both of which have to be given."""
    if mean is None and std is None:
        raise InputError(
            "model.mean",
            None,
            f"needed, as the normalisation of the network is unknown: {', '.join(NORMALIZATIONS)}; or one number for "
            f"each channel or for all, together with {Given('model.std')}",
        )
    if mean is None:
        raise InputError("model.mean", None, f"needed together with {Given('model.std', std)}")
    if std is None:
        raise InputError("model.std", None, f"needed together with {Given('model.mean', mean)}")
    assert not isinstance(mean, str)
    assert not isinstance(std, str)
    return mean, std


def _wrong(mean_and_std: tuple[Given, Given], reason: str) -> InputError:
    mean, std = mean_and_std
    return InputError(*mean, reason, std)


def _each(values: float | Sequence[float], channels: int) -> list[float]:
    """One number per channel."""
    numbers = [values] if isinstance(values, (int, float)) else list(values)
    return [float(value) for value in (numbers * channels if len(numbers) == 1 else numbers)]
