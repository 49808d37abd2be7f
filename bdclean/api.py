"""Cleansing in one call, for who has the network in Python already."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from bdclean import InputError, cleansing, first_line
from bdclean.cleansing import Cleanser
from bdclean.cleansing.base import WhenClean
from bdclean.conclusion import conclude
from bdclean.data import PoisonDataModule
from bdclean.data.images import Images, MemoryImages
from bdclean.data.sources import Source, open_source
from bdclean.data.splits import DEFENDER_LIMIT
from bdclean.models import (
    Moments,
    channels_of,
    check_finite,
    check_trainable,
    duplicate,
    noise,
    normalization,
    plain,
)
from bdclean.modules import Classifier
from bdclean.modules.suspect import count_classes, fitting_size
from bdclean.trainer import Trainer, quieten


class GivenImages(Source):
    """Images that are in memory already.

    Args:
        pixels: (N, H, W, C), uint8, or float in [0, 1].
    """

    def __init__(self, pixels: Tensor) -> None:
        super().__init__("images in memory", "", "")
        self.image_size = pixels.shape[1]
        self.pixels = pixels

    @classmethod
    def has_name(cls, name: str) -> bool:
        return False

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> Images:
        return MemoryImages(self.pixels)


@contextmanager
def _arguments_named() -> Iterator[None]:
    """Within it errors name arguments, not options of the command line."""
    try:
        yield
    except InputError as error:
        message = str(error).replace("--model.arch None", "model").replace("--model.arch", "model")
        raise InputError(re.sub(r"--(?:(?:model|data|method|trainer)\.)?(\w+)", r"\1", message)) from error


@_arguments_named()
def cleanse(
    model: nn.Module,
    images: Tensor | str | Path | Iterable[Any],
    *,
    mean: Moments = None,
    std: Moments = None,
    image_size: int | None = None,
    num_unlabeled: int | None = None,
    batch_size: int | None = None,
    method: str | Callable[[Classifier], Cleanser] = "ScanDistill",
    when_clean: WhenClean = "gentle",
    epochs: int | None = None,
    seed: int = 0,
    **trainer: Any,
) -> nn.Module:
    """As `bdclean.cleanse`."""
    quieten()
    if "max_epochs" in trainer:
        if epochs is not None:
            raise InputError(f"epochs {epochs}: means the same as max_epochs; give one of them")
        epochs = trainer.pop("max_epochs")
    for name, value in (
        ("epochs", epochs),
        ("num_unlabeled", num_unlabeled),
        ("batch_size", batch_size),
        ("seed", seed),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InputError(f"{name} {value!r}: must be a whole number")
    if when_clean not in get_args(WhenClean):
        raise InputError(f"when_clean {when_clean!r}: must be one of {', '.join(get_args(WhenClean))}")
    if not isinstance(method, str) and not callable(method):
        raise InputError(f"method {method!r}: must be a name, or a function from a Classifier to a Cleanser")
    if not isinstance(model, nn.Module):
        raise InputError(f"model: is a {type(model).__name__}, not a torch.nn.Module")
    given: GivenImages | None = None
    if not isinstance(images, (str, Path, Iterable)):
        raise InputError(f"images {images!r}: must be a tensor, a DataLoader, or the name of a set of images")
    if not isinstance(images, (str, Path)):
        tensor = images if isinstance(images, Tensor) else _collect(images, num_unlabeled or DEFENDER_LIMIT)
        pixels = _as_pixels(tensor)
        if pixels.is_floating_point() and not pixels.isfinite().all():
            raise InputError("images: hold nan or inf")
        if pixels.is_floating_point():
            # Triggers are looked for in [0, 1], so what the network takes is brought there, and back before it.
            low, high = pixels.amin((0, 1, 2)).clamp(max=0), pixels.amax((0, 1, 2)).clamp(min=1)
            if mean is None and std is None:
                pixels = (pixels - low) / (high - low)
                mean, std = (-low / (high - low)).tolist(), (1 / (high - low)).tolist()
            elif low.any() or (high > 1).any():
                reach = f"from {float(low.min()):.4g} to {float(high.max()):.4g}"
                raise InputError(f"images: {reach}; where mean and std are given they have to be in [0, 1]")
        given = GivenImages(pixels)
        image_size = given.image_size
    check_trainable(model)
    network = duplicate(model).cpu().float()
    if image_size is None:
        image_size = fitting_size(network, open_source(str(images), option="images").image_size, "the network")
    channels = given.pixels.shape[-1] if given else channels_of(network, image_size)
    means, stds = normalization(mean, std, channels)
    suspect = Classifier(network, count_classes(network, image_size, channels, "model"), image_size, means, stds)
    check_finite(suspect, noise(channels, image_size), "model")
    if outputs := suspect.outputs.describe():
        print(f"model: {outputs}")
    # Options are names; images that are in memory take the place of those that are named.
    name = "procedural" if given else str(images)
    data = PoisonDataModule(
        None, unlabeled=name, num_unlabeled=num_unlabeled, image_size=image_size, batch_size=batch_size, seed=seed
    )
    data.unlabeled = given or data.unlabeled
    if isinstance(method, str):
        method = getattr(cleansing, _known(method))
    options = {
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    } | trainer
    try:
        runner = Trainer(max_epochs=epochs, **options)
    except InputError:
        raise
    except (MisconfigurationException, TypeError, ValueError) as error:
        asked = ", ".join(f"{name}={value!r}" for name, value in ({"epochs": epochs} | trainer).items())
        raise InputError(f"{asked}: {first_line(error)}") from error
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cleanser, report, _ = runner.run(suspect, data, cast("Callable[[Classifier], Cleanser]", method), when_clean)
    agreement = report["intervals"]["cleansed"].get("agreement")
    conclusion = conclude(
        cleanser.harm,
        agreement,
        report["agreement_on"],
        None,
        report["warnings"],
        cleanser.differences,
        cleanser.unlearned,
    )
    if conclusion.trusted is False:
        warnings.warn(conclusion.sentence, stacklevel=3)
    cleansed = plain(duplicate(cleanser.network)).to(memory_format=torch.contiguous_format).eval()
    for new, old in zip(cleansed.parameters(), model.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    one = next(model.parameters(), torch.zeros(0))
    return cleansed.to(one.device, one.dtype)


def _known(method: str) -> str:
    methods = [name for name in cleansing.__all__ if name != "Cleanser"]
    if method not in methods:
        raise InputError(f"method {method}: no such class; there are {', '.join(methods)}")
    return method


def _collect(batches: Iterable[Any], count: int) -> Tensor:
    """The first images of a loader, whose batches are images, or images with anything."""
    found: list[Tensor] = []
    for batch in batches:
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(images, Tensor):
            raise InputError(f"images: gives {type(images).__name__}, not tensors (N, C, H, W)")
        if found and images.shape[1:] != found[0].shape[1:]:
            raise InputError(
                f"images: gives {tuple(images.shape[1:])} and {tuple(found[0].shape[1:])}, not of one size"
            )
        found.append(images.detach().cpu())
        if sum(map(len, found)) >= count:
            break
    if not found:
        raise InputError("images: the loader gives none")
    return torch.cat(found)[:count]


def _as_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) to (N, H, W, C)."""
    shaped = images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] and len(images) > 1
    if not shaped or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise InputError(
            f"images: {images.dtype} {tuple(images.shape)}; needed are float or uint8 (N, 3 or 1, H, H), two or more"
        )
    pixels = images.detach().cpu().permute(0, 2, 3, 1).contiguous()
    return pixels.float() if pixels.is_floating_point() else pixels
