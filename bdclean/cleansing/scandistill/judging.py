"""Evaluating a student without labels, on held-out images."""

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
    def pseudo_labels(self) -> Tensor:
        """(N,) the suspect's predictions."""
        return self.probabilities.argmax(1)

    def kept(self, predicted: Tensor) -> float:
        """The agreement of a student's predictions (N,) with the suspect's, in [0, 1]."""
        return float((predicted == self.pseudo_labels).float().mean())

    def expected_loss(self, predicted: Tensor) -> float:
        """Accuracy that a student with predictions (N,) is expected to lose against the suspect, in [-1, 1].

        Where the two disagree, the suspect's probabilities of both classes estimate the probability that each is
        correct. For an overconfident suspect the estimate is too high, which errs on the safe side.
        """
        both = torch.stack([self.pseudo_labels, predicted], 1)
        first, second = self.probabilities.gather(1, both).unbind(1)
        return float((first - second).mean())

    def harm(self, predicted: Tensor) -> Harm:
        """Disagreement of a student's predictions (N,) with the suspect beyond the suspect's uncertainty."""
        number, pseudo_labels = self.probabilities.shape[1], self.pseudo_labels
        moved = torch.bincount(pseudo_labels * number + predicted, minlength=number**2).view(number, -1)
        confidence = self.probabilities.new_zeros(number).index_add(0, pseudo_labels, self.probabilities.amax(1))
        return find_harm(moved.cpu(), confidence.cpu())
