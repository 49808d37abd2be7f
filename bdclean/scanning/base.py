"""What every detector shares: a network goes in, a score for each class comes out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from scipy import special
from torch import Tensor

from bdclean.errors import within
from bdclean.training import batch_size, pieces

Network = Callable[[Tensor], Tensor]
"""From images in [0, 1], (N, 3, H, W), to logits (N, classes): in eval mode, without gradients for its weights."""

ALPHA = 0.01
"""From this p-value down a backdoor is said to be found."""
FEWEST = 3
"""Classes that it takes for one to stand out."""
USUAL = 10
"""Classes of the networks by which it was chosen what scores mean."""
MANY = 64
"""Of more classes than these only some are searched."""
SCANNED = 512
"""Images that a scan looks at."""


@dataclass(frozen=True)
class Finding:
    """The result of a detector.

    Attributes:
        detector: Its name.
        scores: (C,) how suspicious each class is as a target class; higher is more suspicious. NaN for
            classes that were not searched.
        p_values: (C,) how likely it is that some class stands out by chance as far as each does.
        trigger: Puts the trigger recovered for the most suspicious class onto images (N, 3, H, W) in [0, 1].
    """

    detector: str
    scores: Tensor
    p_values: Tensor
    trigger: Callable[[Tensor], Tensor] | None = None

    @property
    def suspected(self) -> int:
        """The class that stands out most."""
        return int(self.scores.nan_to_num(-torch.inf).argmax())

    @property
    def searched(self) -> list[int]:
        """The classes that were searched."""
        return (~self.scores.isnan()).nonzero()[:, 0].tolist()

    @property
    def p_value(self) -> float:
        """How likely it is by chance that a class stands out as far."""
        return float(self.p_values[self.suspected])


def p_value(findings: Sequence[Finding]) -> float:
    """How likely it is that chance gives one of several detectors a p-value as small as the smallest (Bonferroni)."""
    return min(1.0, len(findings) * min(finding.p_value for finding in findings))


def stands_out(finding: Finding, detectors: int, alpha: float = ALPHA) -> bool:
    """Whether what one of so many detectors found is a backdoor, for all that chance can do."""
    return detectors * finding.p_value <= alpha


@torch.no_grad()
def taken(finding: Finding, network: Network, images: Tensor) -> float | None:
    """How many images go to the suspected class once they carry what was recovered, in percent.

    Args:
        finding: What was recovered, in this network or another.
        network: What answers.
        images: (N, 3, H, W) in [0, 1]; those that the network gives this class anyway do not count.

    Returns:
        None if nothing was recovered, or there are no other images.
    """
    if finding.trigger is None:
        return None
    parts = pieces(images, batch_size(images))
    others = torch.cat([network(part).argmax(1) != finding.suspected for part in parts])
    gone = torch.cat([network(finding.trigger(part)).argmax(1) == finding.suspected for part in parts])
    return round(100 * float(gone[others].float().mean()), 2) if others.any() else None


def shown(p: float) -> str:
    """A p-value as text: below .0001 scores are too far from normal for more digits to mean anything."""
    return f"{p:.2g}" if p >= 1e-4 else "<0.0001"


class Detector(ABC):
    """Scores each class by how easily images can be flipped to it.

    A new detector is a subclass in a file of its own with one method, `score`.
    """

    uses_images: ClassVar[bool] = True
    """Whether it uses images."""
    noise: ClassVar[float] = 0.0
    """Differences between scores that mean nothing."""
    least: ClassVar[float] = -math.inf
    """The largest score that is common among classes of networks without a backdoor: lower ones count as this."""

    @abstractmethod
    def score(
        self, network: Network, images: Tensor, num_classes: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Score of each class, (C,), and the trigger recovered for the most suspicious one, as in `Finding`.

        Args:
            network: What is scanned.
            images: (N, 3, H, W) in [0, 1], on the network's device; one that uses no images takes their size from them.
            num_classes: C.
        """

    def score_some(
        self, network: Network, images: Tensor, num_classes: int, classes: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """As `score` for some classes, (P,), alone. A detector that can do less for them does so here."""
        scores, trigger = self.score(network, images, num_classes)
        return scores[classes], trigger

    def find(self, network: Network, images: Tensor, num_classes: int) -> Finding:
        """The finding in a network. Arguments as in `score`.

        On a CPU always the same of the same network and images; GPUs add up some gradients in any order.
        """
        with torch.random.fork_rng():
            torch.manual_seed(0)
            scores, trigger = self.score(network, images, num_classes)
        scores = scores.cpu()
        # Where all others count as the least, one of few classes has to stand out from these as far as one of ten.
        noise = self.noise * max(1.0, math.sqrt(USUAL / num_classes))
        return Finding(type(self).__name__, scores, grubbs(scores.clamp(min=self.least), noise), trigger)

    def within(self, name: str, value: float, low: float) -> None:
        """Check that an option, by its name, is not below a bound.

        Raises:
            InputError: If it is.
        """
        within(f"detector.{name}", value, low)


def rounds(images: Tensor, classes: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images (N, 3, H, W) and of their classes (N,), in order, over and over, without an end."""
    for first in count(0, size):
        chosen = torch.arange(first, first + size, device=images.device) % len(images)
        yield images[chosen], classes[chosen]


def grubbs(scores: Tensor, noise: float = 0.0) -> Tensor:
    """Grubbs' test for one outlier upwards, of each score against all.

    Source: Grubbs, "Sample Criteria for Testing Outlying Observations", Annals of Mathematical Statistics 1950.

    Args:
        scores: (C,), about normal but for an outlier.
        noise: The least standard deviation that is believed.

    Returns:
        (C,) p-values, with Bonferroni's correction for C candidates; 1 where there are fewer than three classes.
    """
    number, values = len(scores), scores.double()
    spread = values.std().clamp(min=noise) if number >= FEWEST else values.new_zeros(())
    if spread == 0:
        return torch.ones(number)
    distance = (values - values.mean()) / spread
    # The largest distance that there can be leaves nothing to divide by.
    left = ((number - 1) ** 2 - number * distance**2).clamp(min=1e-12)
    t = distance.sign() * (number * (number - 2) * distance**2 / left).sqrt()
    return torch.from_numpy(number * special.stdtr(number - 2, -t.numpy())).clamp(max=1).float()
