"""Methods that select a parameter by the agreement on held-out images."""

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
    """A method that holds out a fifth of its images, at most 1,000, as selection images."""

    needs_selection_images = 0.2

    @torch.no_grad()
    def score(self, changes: Mapping[str, Tensor]) -> float:
        """The agreement of the student on the selection images, in eval mode, with some parameters changed.

        Args:
            changes: Maps names of parameters or buffers of the cleanser to values.

        Returns:
            The percentage of images that are predicted as the suspect's class, or with `labels` as their true class.
        """
        mode = self.network.training
        self.network.eval()
        hits, total = torch.tensor(0, device=self.device), 0
        for images, targets in self.images(choosing=True):
            logits = functional_call(self, dict(changes), (images,))
            right = correct(logits, classes_of(targets))
            hits, total = hits + right.sum(), total + len(images)
        self.set_mode(mode)
        # Processes with different rounding could choose differently.
        return self.trainer.strategy.broadcast(100 * float(hits) / total)

    def furthest(
        self, levels: Sequence[Level], change: Callable[[Level], Mapping[str, Tensor]], tolerance: float
    ) -> Level | None:
        """The last level whose cost is within the tolerance; each level changes the student more than the previous one.

        The cost need not be monotonic, so the levels are tried one by one, from the last.

        Args:
            levels: The levels in order.
            change: Maps a level to the changes for `score`.
            tolerance: Largest loss of agreement, in percentage points, relative to the unchanged student.

        Returns:
            The level; None if no level is within the tolerance.
        """
        least = self.score({}) - tolerance
        return next((level for level in reversed(levels) if self.score(change(level)) >= least), None)
