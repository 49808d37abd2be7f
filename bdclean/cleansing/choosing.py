"""Methods that choose something by how many images keep their class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from bdclean.cleansing.base import Cleanser, classes_of
from bdclean.metrics import correct

Level = TypeVar("Level")


class Choosing(Cleanser):
    """A method that chooses something by a fifth of its images, at most 1,000, on which it does not train."""

    needs_selection_images = 0.2

    @torch.no_grad()
    def score(self, changes: Mapping[str, Tensor]) -> float:
        """How good the student would be with some parameters changed, in eval mode, on the images to choose by.

        Args:
            changes: Name in the cleanser to the value of a parameter or buffer.

        Returns:
            The share of images, in percent, that get the suspect's class, or with `labels` their own.
        """
        mode = self.network.training
        self.network.eval()
        hits, total = torch.tensor(0, device=self.device), 0
        for images, targets in self.images(choosing=True):
            logits = functional_call(self, dict(changes), (images,))
            right = correct(logits, classes_of(targets))
            hits, total = hits + right.sum(), total + len(images)
        self.set_mode(mode)
        # Processes whose last bits differ would choose differently.
        return self.trainer.strategy.broadcast(100 * float(hits) / total)

    def furthest(
        self, levels: Sequence[Level], change: Callable[[Level], Mapping[str, Tensor]], tolerance: float
    ) -> Level | None:
        """The last of some levels, each further from the student than the one before, that costs little enough.

        What they cost need not rise from each to the next, so they are tried one by one, from the last.

        Args:
            levels: In their order.
            change: From a level to what `score` takes.
            tolerance: How many percent of the images to choose by may get lost against the student as it is.

        Returns:
            The level; None if each costs too much.
        """
        least = self.score({}) - tolerance
        return next((level for level in reversed(levels) if self.score(change(level)) >= least), None)
