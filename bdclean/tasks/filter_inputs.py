"""The images that are filtered, and the images that are known to be clean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from bdclean.data import PoisonDataModule
from bdclean.data.batches import Batches
from bdclean.data.defender import named
from bdclean.data.sources import Source, open_source
from bdclean.progress import bar

MAX_CLEAN_IMAGES = 1_000
"""Maximum number of clean images that set the threshold."""
TRIGGERED_SHARE = 0.05
"""Triggered images for each clean one if a score that compares images is measured, as it takes most for clean."""


@dataclass(frozen=True)
class FilterInputs:
    """Images to filter.

    Attributes:
        parts: The images, in one or two sets.
        names: Name of each image: its file, or else its index.
        triggered: (N,) bool, which of them have a trigger; None if unknown.
    """

    parts: tuple[Batches, ...]
    names: list[str]
    triggered: Tensor | None

    def chosen(self, indices: Sequence[int]) -> Tensor:
        """Some of the images, (n, 3, H, W) in [0, 1], on the CPU."""
        first = len(self.parts[0])
        places = [(0, index) if index < first else (1, index - first) for index in indices]
        # One at a time, as they are few and may come from both sets in any order.
        return torch.cat([self.parts[part][torch.tensor([index])].images.cpu() for part, index in places])


@dataclass(frozen=True)
class CleanImages:
    """Images that are known to be clean.

    Attributes:
        images: The images.
        origin: What they are, for reports.
        source: Their source, which keeps files that it extracted from an archive until this object is gone.
    """

    images: Batches
    origin: str
    source: Source | None


def filter_inputs(datamodule: PoisonDataModule, compares_images: bool) -> FilterInputs:
    """The images to filter: the unlabeled ones if there is a source of them, else the test images, with their triggers.

    Args:
        datamodule: The images.
        compares_images: Whether the score compares the images with each other, so that few of them may have a trigger.

    Raises:
        InputError: If there are no images.
    """
    if datamodule.unlabeled is not None or not datamodule.labelled:
        images, names = datamodule.predicted
        return FilterInputs((Batches(datamodule.placement.place(images)),), names, None)
    clean, *others = (cast(Batches, loader.dataset) for loader in datamodule.test_dataloader())
    names = [str(number) for number in range(len(clean))]
    if not others or not len(others[0]):
        return FilterInputs((clean,), names, None)
    triggered = others[0]
    count = min(len(triggered), max(1, round(TRIGGERED_SHARE * len(clean)))) if compares_images else len(triggered)
    if count < len(triggered):
        order = torch.randperm(len(triggered), generator=torch.Generator().manual_seed(datamodule.seed))
        images = triggered.images.subset(order[:count].to(triggered.images.labels.device))
        triggered = Batches(images, stamp=triggered.stamp, in_workers=triggered.in_workers)
    names += [f"triggered {number}" for number in range(count)]
    return FilterInputs((clean, triggered), names, torch.arange(len(names)) >= len(clean))


def known_clean(datamodule: PoisonDataModule, clean: str | Source | None) -> CleanImages | None:
    """Images that are known to be clean, at most `MAX_CLEAN_IMAGES`; None if there are none.

    By default they are validation images of the labelled source, which neither the attacker nor the defender trains on;
    without a training part its test images, unless these are filtered.

    Args:
        datamodule: The images.
        clean: A source of clean images, or its name.

    Raises:
        InputError: If there is no such source.
    """
    source = datamodule.source
    if clean is not None:
        source = open_source(clean, str(datamodule.root), "clean") if isinstance(clean, str) else clean
        source.download()
        drawn = source.load_unlabeled(datamodule.image_size, MAX_CLEAN_IMAGES, datamodule.seed)
        images, origin = (
            named(drawn.resized(datamodule.sets.resize), datamodule.placement)[0],
            "images that were given as clean",
        )
    elif datamodule.trainable:
        images, origin = datamodule.sets.validation, "validation images of the labelled source"
    elif datamodule.labelled and datamodule.unlabeled is not None:
        images, origin = datamodule.sets.test(), "test images of the labelled source"
    else:
        return None
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(datamodule.seed))
    images = images.subset(order[:MAX_CLEAN_IMAGES].to(images.labels.device))
    return CleanImages(Batches(datamodule.placement.place(images)), origin, source) if len(images) else None


def some_of(batches: Batches, count: int) -> Tensor:
    """Images of a set in random order, the same in each call: (at most `count`, 3, H, W) in [0, 1]."""
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(0))
    return batches[order[:count]].images


def read(datamodule: PoisonDataModule, parts: Sequence[Batches], device: torch.device) -> Iterator[Tensor]:
    """All images in order, in batches (n, 3, H, W) on a device, with a progress bar."""
    for part in parts:
        loader: Any = datamodule.loader(part)
        for batch in bar(loader, "filter"):
            yield batch.images.to(device)
