"""Judging a student without labels, on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdclean.cleansing.harm import Harm, find_harm


@dataclass(frozen=True)
class Judge:
    """Held-out images, and the suspect's probabilities for them.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        probabilities: (N, classes) of the suspect.
    """

    images: Tensor
    probabilities: Tensor

    @property
    def own(self) -> Tensor:
        """(N,) the suspect's predictions."""
        return self.probabilities.argmax(1)

    def kept(self, predicted: Tensor) -> float:
        """The agreement of a student's predictions (N,) with the suspect's, in [0, 1]."""
        return float((predicted == self.own).float().mean())

    def expected_loss(self, predicted: Tensor) -> float:
        """Accuracy that a student with predictions (N,) is expected to lose against the suspect, in [-1, 1].

        Where the two disagree, the suspect's probabilities of both classes estimate how likely each one is right. The
        estimate is too high for an overconfident suspect, which errs on the safe side.
        """
        both = torch.stack([self.own, predicted], 1)
        first, second = self.probabilities.gather(1, both).unbind(1)
        return float((first - second).mean())

    def harm(self, predicted: Tensor) -> Harm:
        """Disagreement of a student's predictions (N,) with the suspect beyond the suspect's uncertainty."""
        number, own = self.probabilities.shape[1], self.own
        moved = torch.bincount(own * number + predicted, minlength=number**2).view(number, -1)
        confidence = self.probabilities.new_zeros(number).index_add(0, own, self.probabilities.amax(1))
        return find_harm(moved.cpu(), confidence.cpu())
