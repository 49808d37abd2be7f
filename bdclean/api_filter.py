"""Filter images with a network in memory with one call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdclean import tasks
from bdclean.api import GivenImages, check_whole, in_memory_name, make_trainer, prepared
from bdclean.data.sources import Source
from bdclean.engine.quiet import printed, quieten
from bdclean.errors import InputError, naming
from bdclean.filtering import SCORES, Score
from bdclean.modules import Classifier
from bdclean.networks import Moments, duplicate
from bdclean.reporting.filters import Filtering
from bdclean.scanning import ALPHA
from bdclean.user_inputs import with_normalization


@naming(in_memory_name)
def filter(  # the name of the command
    model: nn.Module,
    images: Tensor | str | Path | Iterable[Any],
    cleansed: nn.Module | None = None,
    *,
    score: str | Score | None = None,
    clean: Tensor | str | Path | None = None,
    processor: Any = None,
    mean: Moments = None,
    std: Moments = None,
    image_size: int | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
    **trainer: Any,
) -> Filtering:
    """See `bdclean.filter`."""
    quieten()
    check_whole(seed=seed)
    if cleansed is not None and not isinstance(cleansed, nn.Module):
        raise InputError("cleansed", None, f"is a {type(cleansed).__name__}, not a torch.nn.Module")
    given = with_normalization(model, processor, mean, std, image_size)
    known = 0
    if isinstance(clean, Tensor):
        if not isinstance(images, Tensor) or images.shape[1:] != clean.shape[1:] or images.dtype != clean.dtype:
            raise InputError("clean", None, "must have the shape and the type of images, or be the name of a source")
        # Together, as float images are scaled by their range.
        images, known = torch.cat([clean, images]), len(clean)
    suspect, data = prepared(given, processor, images, None, None, seed)
    source: str | Source | None = None if clean is None else str(clean)
    if isinstance(clean, Tensor) and isinstance(data.unlabeled, GivenImages):
        pixels = data.unlabeled.pixels
        source, data.unlabeled = GivenImages(pixels[:known]), GivenImages(pixels[known:])
    other = None if cleansed is None else _alike(cleansed, suspect)
    with torch.random.fork_rng(), printed():
        torch.manual_seed(seed)
        return tasks.filter_images(make_trainer(trainer), suspect, data, other, _score(score), source, alpha)


def _alike(network: nn.Module, suspect: Classifier) -> Classifier:
    """A copy of a network, with the normalisation of a suspect."""
    inner = network.network if isinstance(network, Classifier) else network
    settings = suspect.hparams
    plain_copy = duplicate(inner).cpu().float()
    return Classifier(plain_copy, suspect.num_classes, suspect.image_size, settings["mean"], settings["std"])


def _score(score: str | Score | None) -> Score | None:
    """A score by its name, with its default options."""
    if not isinstance(score, str):
        return score
    known = {kind.__name__: kind for kind in SCORES}
    if score not in known:
        raise InputError("score", score, f"no such class; there are {', '.join(known)}")
    return known[score]()
