"""Comparison of a network with two classes with a copy, since neither of only two scores can stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdclean.scanning import Finding

BACKDOOR_EXCESS = 0.5
"""Smallest excess over a re-initialised copy at which a backdoor is reported in a network with two classes."""
CLEAN_EXCESS = 0.25
"""Excess below which no backdoor is reported with two classes; from here to `BACKDOOR_EXCESS`, nothing is decided."""


@dataclass(frozen=True)
class Excess:
    """Scores of two classes in a network, and in a partly re-initialised copy that was distilled from it.

    Attributes:
        detector: The detector.
        number: The class whose score exceeds its score in the copy by more.
        scores: Scores in the network of this class and of the other class.
        reference: Scores in the copy of the same two classes.
    """

    detector: str
    number: int
    scores: tuple[float, float]
    reference: tuple[float, float]

    @property
    def size(self) -> float:
        """Excess of the class over the copy minus that of the other class, so that a change of both cancels."""
        own, other = (score - reference for score, reference in zip(self.scores, self.reference, strict=True))
        return own - other

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "detector": self.detector,
            "class": self.number,
            "scores": list(self.scores),
            "reference": list(self.reference),
            "size": self.size,
        }


def largest_excess(findings: Sequence[Finding], reference: Sequence[Finding]) -> Excess | None:
    """The finding that differs most from the reference; None if no detector recovered a trigger.

    Args:
        findings: One finding of each detector in a network with two classes.
        reference: The findings of the same detectors in the copy.
    """
    found = [
        Excess(own.detector, number, _ordered_scores(own.scores, number), _ordered_scores(other.scores, number))
        for own, other in zip(findings, reference, strict=True)
        if own.trigger is not None
        for number in range(2)
    ]
    return max(found, key=lambda one: one.size, default=None)


def _ordered_scores(scores: Tensor, number: int) -> tuple[float, float]:
    """The scores of two classes, that of class `number` first."""
    return float(scores[number]), float(scores[1 - number])
