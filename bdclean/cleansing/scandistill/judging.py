"""A student judged without labels, on images that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdclean.cleansing.harm import Harm, find_harm


@dataclass(frozen=True)
class Judge:
    """Images that students are judged by, and the suspect's probabilities for them.

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
        """The share of the images for which a student predicts, (N,), what the suspect predicts."""
        return float((predicted == self.own).float().mean())

    def expected_loss(self, predicted: Tensor) -> float:
        """The accuracy that a student with these predictions, (N,), is expected to lose against the suspect, in [0, 1].

        Where the two disagree, the suspect's probabilities of both classes say how likely each of them is right. A
        suspect that is surer than it is right makes this an overestimate: it errs on the safe side.
        """
        both = torch.stack([self.own, predicted], 1)
        first, second = self.probabilities.gather(1, both).unbind(1)
        return float((first - second).mean())

    def harm(self, predicted: Tensor) -> Harm:
        """What a student with these predictions, (N,), loses beyond what the suspect is unsure about."""
        number, own = self.probabilities.shape[1], self.own
        moved = torch.bincount(own * number + predicted, minlength=number**2).view(number, -1)
        confidence = self.probabilities.new_zeros(number).index_add(0, own, self.probabilities.amax(1))
        return find_harm(moved.cpu(), confidence.cpu())
