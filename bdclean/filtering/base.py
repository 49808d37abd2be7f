"""The base classes of scores, which tell images with a trigger from images without one."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bdclean.errors import within


@dataclass(frozen=True)
class Context:
    """What a score may use apart from the images that it scores.

    Attributes:
        suspect: Maps images in [0, 1], (N, 3, H, W), to logits (N, classes); in eval mode.
        cleansed: The cleansed network, of the same kind; None if there is none.
        overlays: (K, 3, H, W) in [0, 1], at least one: images that are known to be clean if there are any, else some
            of the images that are scored.
    """

    suspect: nn.Module
    cleansed: nn.Module | None
    overlays: Tensor


@dataclass(frozen=True)
class PredictedBatch:
    """Images and the predictions for them.

    Attributes:
        images: (N, 3, H, W) in [0, 1].
        suspect: (N, C) logits of the suspect.
        cleansed: (N, C) logits of the cleansed network; None if there is none.
    """

    images: Tensor
    suspect: Tensor
    cleansed: Tensor | None

    @property
    def predicted(self) -> Tensor:
        """(N,) the classes that the suspect predicts."""
        return self.suspect.argmax(1)


class Score(ABC):
    """Scores images: the higher the score, the more likely the image has a trigger."""

    uses_cleansed: ClassVar[bool] = False
    """Whether it needs the cleansed network."""
    compares_images: ClassVar[bool] = False
    """Whether the score of an image depends on the other images, most of which must be clean."""

    def check(self, context: Context) -> None:  # noqa: B027  # most scores have nothing to check
        """Check that the networks have what the score needs, before any image is scored.

        Raises:
            InputError: If they do not.
        """

    @abstractmethod
    def scores(self, context: Context, batches: Iterable[PredictedBatch]) -> Tensor:
        """Score all images.

        Args:
            context: The networks.
            batches: The images in batches, all on the device of the networks.

        Returns:
            (N,) float32 on the CPU.
        """

    def options(self) -> dict[str, Any]:
        """The constructor's arguments, for reports."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def within(self, name: str, value: float, low: float, high: float = math.inf) -> None:
        """Check the range of an option.

        Raises:
            InputError: If the value is out of range or not finite.
        """
        within(f"score.{name}", value, low, high)


class ImageScore(Score):
    """A score of each image by itself."""

    def scores(self, context: Context, batches: Iterable[PredictedBatch]) -> Tensor:
        return torch.cat([self.score(context, batch).float().cpu() for batch in batches])

    @abstractmethod
    def score(self, context: Context, batch: PredictedBatch) -> Tensor:
        """Score a batch, (N,)."""


def predict_batches(context: Context, batches: Iterable[Tensor]) -> Iterator[PredictedBatch]:
    """Run both networks on batches of images, (n, 3, H, W) each."""
    for images in batches:
        yield PredictedBatch(
            images, context.suspect(images), None if context.cleansed is None else context.cleansed(images)
        )
