"""The base class of detectors, which score each class of a network, and the statistics of the scores."""

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
"""Maps images in [0, 1], (N, 3, H, W), to logits (N, classes), in eval mode and without gradients for its weights."""

ALPHA = 0.01
"""Largest p-value at which a backdoor is reported."""
FEWEST = 3
"""Minimum number of classes for the outlier test."""
CALIBRATION_CLASSES = 10
"""Number of classes of the networks on which `Detector.noise` and `Detector.score_floor` were calibrated."""
MANY = 64
"""Maximum number of classes that are all searched; of more classes, only some are."""
SCANNED = 512
"""Number of images that a scan uses."""


@dataclass(frozen=True)
class Finding:
    """The result of a detector.

    Attributes:
        detector: Name of the detector.
        scores: (C,) suspicion of each class as a target class; higher is more suspicious. NaN for classes that were
            not searched.
        p_values: (C,) probability that, by chance, some class has as extreme a score as each class has.
        trigger: Applies the recovered trigger of the most suspicious class to images (N, 3, H, W) in [0, 1].
    """

    detector: str
    scores: Tensor
    p_values: Tensor
    trigger: Callable[[Tensor], Tensor] | None = None

    @property
    def suspected(self) -> int:
        """The class with the highest score."""
        return int(self.scores.nan_to_num(-torch.inf).argmax())

    @property
    def searched(self) -> list[int]:
        """The classes that were searched."""
        return (~self.scores.isnan()).nonzero()[:, 0].tolist()

    @property
    def p_value(self) -> float:
        """The p-value of the suspected class."""
        return float(self.p_values[self.suspected])


def p_value(findings: Sequence[Finding]) -> float:
    """The p-value over all detectors: the smallest of the findings, with Bonferroni's correction."""
    return min(1.0, len(findings) * min(finding.p_value for finding in findings))


def is_significant(finding: Finding, detectors: int, alpha: float = ALPHA) -> bool:
    """Whether one finding is significant, with Bonferroni's correction for the number of detectors."""
    return detectors * finding.p_value <= alpha


@torch.no_grad()
def trigger_asr(finding: Finding, network: Network, images: Tensor) -> float | None:
    """The ASR of a recovered trigger towards the suspected class, in percent.

    Args:
        finding: A finding in this network or another.
        network: The network to measure.
        images: (N, 3, H, W) in [0, 1]; images that the network predicts as this class without the trigger do not count.

    Returns:
        The ASR; None if no trigger was recovered, or no image counts.
    """
    if finding.trigger is None:
        return None
    parts = pieces(images, batch_size(images))
    others = torch.cat([network(part).argmax(1) != finding.suspected for part in parts])
    flipped = torch.cat([network(finding.trigger(part)).argmax(1) == finding.suspected for part in parts])
    return round(100 * float(flipped[others].float().mean()), 2) if others.any() else None


def format_p_value(p: float) -> str:
    """Format a p-value: below 0.0001 the scores are too far from normal for more digits to be meaningful."""
    return f"{p:.2g}" if p >= 1e-4 else "<0.0001"


class Detector(ABC):
    """Scores each class by how easily images can be flipped to it.

    A new detector is a subclass in a file of its own with one method, `score`.
    """

    uses_images: ClassVar[bool] = True
    """Whether it uses images."""
    noise: ClassVar[float] = 0.0
    """Lower bound of the standard deviation in the outlier test: smaller differences of scores are noise."""
    score_floor: ClassVar[float] = -math.inf
    """Largest score that is common in clean networks; lower scores count as this."""

    passes: ClassVar[int] = 1000
    """Approximate cost of the search for one class, in forward passes of one image."""
    takes_crops: ClassVar[bool] = False
    """Whether the scores may be those of the central quarter of large images, if the network classifies crops."""

    @abstractmethod
    def score(
        self, network: Network, images: Tensor, num_classes: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Score each class, and recover the trigger of the most suspicious one.

        Args:
            network: The network to scan.
            images: (N, 3, H, W) in [0, 1], on the network's device; a detector without images uses only their size.
            num_classes: C.

        Returns:
            (C,) scores, and the trigger as in `Finding`; None if none is recovered.
        """

    def score_some(
        self, network: Network, images: Tensor, num_classes: int, classes: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Score only some classes, (P,). Override this method if scoring fewer classes can be faster.

        Arguments and result are otherwise those of `score`.
        """
        scores, trigger = self.score(network, images, num_classes)
        return scores[classes], trigger

    def find(self, network: Network, images: Tensor, num_classes: int) -> Finding:
        """Score a network and test the scores for an outlier. The arguments are those of `score`.

        On a CPU the result is deterministic; GPUs add some gradients in an arbitrary order.
        """
        with torch.random.fork_rng():
            torch.manual_seed(0)
            scores, trigger = self.score(network, images, num_classes)
        scores = scores.cpu()
        # With few classes, all others at `score_floor`, an outlier must be as far away as among ten.
        noise = self.noise * max(1.0, math.sqrt(CALIBRATION_CLASSES / num_classes))
        return Finding(type(self).__name__, scores, grubbs(scores.clamp(min=self.score_floor), noise), trigger)

    def within(self, name: str, value: float, low: float) -> None:
        """Check the lower bound of an option.

        Raises:
            InputError: If the value is below the bound or not finite.
        """
        within(f"detector.{name}", value, low)


def rounds(images: Tensor, classes: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cycle through images (N, 3, H, W) and their classes (N,) in batches of a given size, without end."""
    for first in count(0, size):
        chosen = torch.arange(first, first + size, device=images.device) % len(images)
        yield images[chosen], classes[chosen]


def grubbs(scores: Tensor, noise: float = 0.0) -> Tensor:
    """Grubbs' one-sided test for an outlier above, for each score.

    Source: Grubbs, "Sample Criteria for Testing Outlying Observations", Annals of Mathematical Statistics 1950.

    Args:
        scores: (C,), approximately normal except for an outlier.
        noise: Lower bound of the standard deviation.

    Returns:
        (C,) p-values, with Bonferroni's correction for C candidates; 1 with fewer than three classes.
    """
    number, values = len(scores), scores.double()
    spread = values.std().clamp(min=noise) if number >= FEWEST else values.new_zeros(())
    if spread == 0:
        return torch.ones(number)
    distance = (values - values.mean()) / spread
    # The divisor is 0 at the largest possible distance.
    left = ((number - 1) ** 2 - number * distance**2).clamp(min=1e-12)
    t = distance.sign() * (number * (number - 2) * distance**2 / left).sqrt()
    return torch.from_numpy(number * special.stdtr(number - 2, -t.numpy())).clamp(max=1).float()
