"""Cleanse or scan a network in memory with one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bdclean import cleansing, tasks
from bdclean.cleansing import Cleanser
from bdclean.cleansing.base import WhenClean
from bdclean.data import PoisonDataModule
from bdclean.data.images import Images, MemoryImages
from bdclean.data.memory import scaled
from bdclean.data.sources import Source, open_source
from bdclean.data.splits import DEFENDER_LIMIT
from bdclean.engine.blame import OF_LIGHTNING, blamed
from bdclean.engine.quiet import printed, quieten
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given, InputError, argument, naming
from bdclean.modules import Classifier, Suspect
from bdclean.modules.suspect import count_classes, fitting_size
from bdclean.networks import (
    Moments,
    channels_of,
    check_finite,
    check_trainable,
    duplicate,
    noise,
    normalization,
    plain,
)
from bdclean.registry import METHOD_ALIASES
from bdclean.reporting.results import Cleansing, Scan
from bdclean.scanning import ALPHA
from bdclean.suspects.loading import load as load_suspect
from bdclean.user_inputs import UserNetwork, gather, undo_normalization, with_normalization

MODEL = Given("model.arch")
"""The parameter that error messages about the network name."""


class GivenImages(Source):
    """Images in memory.

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


def in_memory_name(parameter: str) -> str:
    """The name of a parameter in `cleanse` and `scan`."""
    return {"model.arch": "model", "data.unlabeled": "images"}.get(parameter) or argument(parameter)


def _in_file(parameter: str) -> str:
    """The name of a parameter in `load`."""
    return "path" if parameter == "ckpt" else argument(parameter)


@naming(in_memory_name)
def cleanse(
    model: nn.Module,
    images: Tensor | str | Path | Iterable[Any],
    *,
    processor: Any = None,
    mean: Moments = None,
    std: Moments = None,
    image_size: int | None = None,
    num_unlabeled: int | None = None,
    batch_size: int | None = None,
    method: str | Callable[[Classifier], Cleanser] = "ScanDistill",
    when_clean: WhenClean = "gentle",
    epochs: int | None = None,
    budget: str | None = None,
    seed: int = 0,
    return_result: bool = False,
    **trainer: Any,
) -> nn.Module | tuple[nn.Module, Cleansing]:
    """See `bdclean.cleanse`."""
    quieten()
    if "max_epochs" in trainer:
        if epochs is not None:
            raise InputError("epochs", epochs, "means the same as max_epochs; give one of them")
        epochs = trainer.pop("max_epochs")
    check_whole(epochs=epochs, num_unlabeled=num_unlabeled, batch_size=batch_size, seed=seed)
    if when_clean not in get_args(WhenClean):
        raise InputError("when_clean", repr(when_clean), f"must be one of {', '.join(get_args(WhenClean))}")
    if not isinstance(method, str) and not callable(method):
        raise InputError("method", repr(method), "must be a name, or a function from a Classifier to a Cleanser")
    given = with_normalization(model, processor, mean, std, image_size)
    suspect, data = prepared(given, processor, images, num_unlabeled, batch_size, seed)
    make = getattr(cleansing, _known(method)) if isinstance(method, str) else method
    runner = make_trainer(trainer, epochs)
    with torch.random.fork_rng(), printed():
        torch.manual_seed(seed)
        cleanser, result = tasks.cleanse(runner, suspect, data, make, when_clean, scan=False, budget=budget)
    if result.conclusion is not None and result.conclusion.trusted is False:
        warnings.warn(result.conclusion.sentence, stacklevel=3)
    cleansed = plain(duplicate(cleanser.network)).to(memory_format=torch.contiguous_format).eval()
    for new, old in zip(cleansed.parameters(), given.network.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    first = next(model.parameters(), torch.zeros(0))
    cleansed = cleansed.to(first.device, first.dtype)
    return (cleansed, result) if return_result else cleansed


@naming(in_memory_name)
def scan(
    model: nn.Module,
    images: Tensor | str | Path | Iterable[Any],
    *,
    processor: Any = None,
    mean: Moments = None,
    std: Moments = None,
    image_size: int | None = None,
    num_unlabeled: int | None = None,
    alpha: float = ALPHA,
    budget: str | None = None,
    seed: int = 0,
    **trainer: Any,
) -> Scan:
    """See `bdclean.scan`."""
    quieten()
    check_whole(num_unlabeled=num_unlabeled, seed=seed)
    given = with_normalization(model, processor, mean, std, image_size)
    suspect, data = prepared(given, processor, images, num_unlabeled, None, seed)
    with torch.random.fork_rng(), printed():
        torch.manual_seed(seed)
        return tasks.scan(make_trainer(trainer), suspect, data, alpha=alpha, budget=budget)


@naming(_in_file)
def load(path: str, source: str | None, unlabeled: str | None, **options: Any) -> tuple[Suspect, PoisonDataModule]:
    """See `bdclean.load`."""
    return load_suspect(path, source, unlabeled, **options)


def check_whole(**values: Any) -> None:
    """Refuse arguments that are not whole numbers; None means that an argument is not given."""
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InputError(name, repr(value), "must be a whole number")


def prepared(
    given: UserNetwork,
    processor: Any,
    images: Tensor | str | Path | Iterable[Any],
    num_unlabeled: int | None,
    batch_size: int | None,
    seed: int,
) -> tuple[Classifier, PoisonDataModule]:
    """A copy of a network with its normalisation, and images in [0, 1] for it."""
    mean, std, image_size = given.mean, given.std, given.image_size
    in_memory: GivenImages | None = None
    if not isinstance(images, (str, Path, Iterable)):
        raise InputError("images", repr(images), "must be a tensor, a DataLoader, or the name of a set of images")
    if not isinstance(images, (str, Path)):
        pixels = gather(images, num_unlabeled or DEFENDER_LIMIT, image_size, given.resize)
        if processor is not None:
            pixels = undo_normalization(pixels, mean, std)
        if pixels.is_floating_point() and not given.explicit:
            mean = std = None
        pixels, mean, std = scaled(pixels, mean, std)
        in_memory = GivenImages(pixels)
        image_size = in_memory.image_size
    model = given.network
    check_trainable(model)
    network = duplicate(model).cpu().float()
    if image_size is None:
        image_size = fitting_size(network, open_source(str(images), parameter="data.unlabeled").image_size, MODEL)
    channels = in_memory.pixels.shape[-1] if in_memory else channels_of(network, image_size)
    means, stds = normalization(mean, std, channels)
    suspect = Classifier(network, count_classes(network, image_size, channels, MODEL), image_size, means, stds)
    check_finite(suspect, noise(channels, image_size), MODEL)
    if len(given.class_names) == suspect.num_classes:
        suspect.class_names = given.class_names
    if outputs := suspect.outputs.describe():
        print(f"model: {outputs}")
    # The module's options are names, so images in memory replace a named source.
    name = "procedural" if in_memory else str(images)
    data = PoisonDataModule(
        None,
        unlabeled=name,
        num_unlabeled=num_unlabeled,
        image_size=image_size,
        resize=None if given.resize is None else str(given.resize),
        batch_size=batch_size,
        seed=seed,
    )
    data.unlabeled = in_memory or data.unlabeled
    return suspect, data


def make_trainer(options: Mapping[str, Any], epochs: int | None = None) -> Trainer:
    """A Trainer that writes no files, unless the user's options make it."""
    defaults = {
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    try:
        return Trainer(max_epochs=epochs, **defaults | dict(options))
    except InputError:
        raise
    except OF_LIGHTNING as error:
        raise blamed(error, {"epochs": epochs, **options}) from error


def _known(method: str) -> str:
    method = METHOD_ALIASES.get(method, method)
    methods = [name for name in cleansing.__all__ if name != "Cleanser"]
    if method not in methods:
        raise InputError("method", method, f"no such class; there are {', '.join(methods)}")
    return method
