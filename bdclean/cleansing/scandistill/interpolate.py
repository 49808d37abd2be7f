"""The straight line between the weights of the suspect and the student, and where on it to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import nn

GONE = 0.02
"""Share of images that recovered triggers may still flip where they are unlearned."""
BACK = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of the way from suspect to student to go back to where they are."""
SLACK = 0.003
"""Share of images that recovered triggers may flip more often for going back."""
BACK_OFF = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Shares of the way to go back to further, while they stay unlearned, if the student does harm."""
ON = (1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.45, 1.5)
"""Shares of the way to go on to until they are."""
LOST = 0.03
"""Share of images that may lose the suspect's prediction for going on."""
RETREAT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Shares of the way to go back to where no backdoor was found."""
BEARABLE = 0.0075
"""Accuracy, as a share of images, that may be lost where no backdoor was found, as far as the suspect can tell."""


class Path:
    """The line from a suspect's weights and buffers to a student's, on which the student can be moved.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022; beyond the student: Ilharco et al.,
    "Editing models with task arithmetic", ICLR 2023.

    Args:
        suspect: Where it begins, at a share of 0. It is not changed.
        student: Where it ends, at a share of 1: a network of the same architecture, which is moved in place.
    """

    def __init__(self, suspect: nn.Module, student: nn.Module) -> None:
        self.student = student
        self.suspect = suspect.state_dict()
        self.first = {name: value for name, value in self.suspect.items() if value.is_floating_point()}
        self.last = {name: value.clone() for name, value in student.state_dict().items() if name in self.first}

    def move(self, share: float) -> None:
        """Give the student the weights at a share of the way; above 1 it goes on beyond its own."""
        if share == 0:
            # Counters, too, which are whole numbers.
            self.student.load_state_dict(self.suspect)
            return
        mixed = {name: self.first[name].lerp(value, share) for name, value in self.last.items()}
        self.student.load_state_dict(mixed, strict=False)

    def along(self, shares: Sequence[float], holds: Callable[[], bool]) -> float:
        """Move the student from share to share as long as something holds; the last of which it did, or 1."""
        reached = 1.0
        for share in shares:
            self.move(share)
            if not holds():
                break
            reached = share
        return reached

    def until(self, shares: Sequence[float], holds: Callable[[], bool]) -> float:
        """Move the student from share to share until something holds; the first of which it does, or the last."""
        for share in shares:
            self.move(share)
            if holds():
                return share
        return shares[-1]


class Standing(Protocol):
    """How the student stands where it has been moved to; each is measured anew."""

    def effect(self) -> float:
        """The share of images that recovered triggers flip; NaN where there are no images to say so by."""

    def kept(self) -> float:
        """The share of images that keep the suspect's prediction."""

    def expected_loss(self) -> float:
        """The accuracy that is expected to be lost against the suspect, as a share."""

    def harmful(self) -> bool:
        """Whether it loses more than the suspect is unsure about."""


def settle(path: Path, standing: Standing, spare: bool) -> float:
    """Where to end after triggers were unlearned: back as far as they stay so, or on if they are not.

    Args:
        path: With the student at its end.
        standing: How the student stands.
        spare: Whether a student that is expected to lose no more than is bearable stays as it is.

    Returns:
        The share of the way.
    """
    least = standing.effect()
    if math.isnan(least):
        return 1.0
    return _go_on(path, standing) if least > GONE else _go_back(path, standing, least, spare)


def _go_on(path: Path, standing: Standing) -> float:
    """On until recovered triggers are unlearned, as long as hardly any prediction is lost for it."""
    kept, chosen = standing.kept(), 1.0
    for share in ON:
        path.move(share)
        # Where a variance falls below zero there are no predictions.
        if not standing.kept() >= kept - LOST:
            break
        chosen = share
        if standing.effect() <= GONE:
            break
    return chosen


def _go_back(path: Path, standing: Standing, least: float, spare: bool) -> float:
    """Back as far as recovered triggers flip as few images, and further while they stay unlearned if there is harm."""
    chosen = 1.0
    if not spare or standing.expected_loss() > BEARABLE:
        chosen = path.along(BACK, lambda: standing.effect() <= least + SLACK)
        path.move(chosen)
    for share in (one for one in BACK_OFF if one < chosen):
        if not standing.harmful():
            break
        path.move(share)
        if standing.effect() > GONE:
            break
        chosen = share
    return chosen


def retreat(path: Path, standing: Standing) -> float:
    """Where to end if no backdoor was found: as far from the suspect as is expected to lose next to no accuracy.

    Between networks without batch norms there often is no way but all of it.
    """
    return path.until(RETREAT, lambda: standing.expected_loss() <= BEARABLE)
