"""Interpolation between the weights of suspect and student, and extrapolation past the student."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import nn

UNLEARNED_ASR = 0.02
"""ASR of recovered triggers, as a share, up to which they count as unlearned."""
INTERPOLATION_STEPS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Positions between suspect (0) and student (1) to try if the triggers are unlearned."""
ASR_SLACK = 0.003
"""Largest rise of the ASR of recovered triggers, as a share, for interpolating."""
BACK_OFF_STEPS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Further positions to try while the triggers stay unlearned, if the student does harm."""
EXTRAPOLATION_STEPS = (1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.45, 1.5)
"""Positions past the student to try until the triggers are unlearned."""
AGREEMENT_SLACK = 0.03
"""Largest fall of the agreement with the suspect, as a share, for extrapolating."""
MIN_GAIN = 0.002
"""Smallest fall of the ASR of recovered triggers, as a share, for extrapolating once they are unlearned."""
RETREAT_STEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Positions to try if no backdoor was found."""
MAX_EXPECTED_LOSS = 0.0075
"""Expected loss of accuracy, as a share, that is acceptable if no backdoor was found."""


class Path:
    """The line from a suspect's weights and buffers to a student's, on which the student can be moved.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022; beyond the student: Ilharco et al.,
    "Editing models with task arithmetic", ICLR 2023.

    Args:
        suspect: The network at position 0. It is not changed.
        student: The network at position 1, of the same architecture. It is moved in place.
    """

    def __init__(self, suspect: nn.Module, student: nn.Module) -> None:
        self.student = student
        self.suspect = suspect.state_dict()
        self.first = {name: value for name, value in self.suspect.items() if value.is_floating_point()}
        self.last = {name: value.clone() for name, value in student.state_dict().items() if name in self.first}

    def move(self, share: float) -> None:
        """Give the student the weights at a position; above 1 they are extrapolated."""
        if share == 0:
            # Including integer buffers.
            self.student.load_state_dict(self.suspect)
            return
        mixed = {name: self.first[name].lerp(value, share) for name, value in self.last.items()}
        self.student.load_state_dict(mixed, strict=False)

    def along(self, shares: Sequence[float], holds: Callable[[], bool]) -> float:
        """Move the student from position to position while a condition holds: the last where it did, or 1."""
        reached = 1.0
        for share in shares:
            self.move(share)
            if not holds():
                break
            reached = share
        return reached

    def until(self, shares: Sequence[float], holds: Callable[[], bool]) -> float:
        """Move the student from position to position until a condition holds: the first where it does, or the last."""
        for share in shares:
            self.move(share)
            if holds():
                return share
        return shares[-1]


class Measurements(Protocol):
    """Measurements of the student at its present position."""

    def effect(self) -> float:
        """ASR of the recovered triggers, as a share; NaN if no image counts."""

    def kept(self) -> float:
        """Agreement with the suspect, as a share."""

    def expected_loss(self) -> float:
        """Accuracy expected to be lost against the suspect, as a share."""

    def harmful(self) -> bool:
        """Whether the student disagrees with the suspect beyond the suspect's uncertainty."""


def settle(path: Path, student: Measurements, spare: bool) -> float:
    """Choose the position after unlearning: interpolate if the triggers are unlearned, or else extrapolate.

    Args:
        path: The path, with the student at position 1.
        student: Measurements of the student.
        spare: Whether to keep the student's weights if its expected loss is acceptable.

    Returns:
        The position.
    """
    least = student.effect()
    if math.isnan(least):
        return 1.0
    return _extrapolate(path, student) if least > UNLEARNED_ASR else _interpolate(path, student, least, spare)


def _extrapolate(path: Path, student: Measurements) -> float:
    """Extrapolate until the triggers are unlearned, and further while their ASR falls more than the accuracy may."""
    kept, chosen = student.kept(), 1.0
    effect, loss = student.effect(), student.expected_loss()
    for share in EXTRAPOLATION_STEPS:
        path.move(share)
        # A negative variance gives NaN, and no agreement.
        if not student.kept() >= kept - AGREEMENT_SLACK:
            break
        left, costs = student.effect(), student.expected_loss()
        if effect <= UNLEARNED_ASR and effect - left <= max(costs - loss, MIN_GAIN):
            break
        chosen, effect, loss = share, left, costs
    return chosen


def _interpolate(path: Path, student: Measurements, least: float, spare: bool) -> float:
    """Interpolate at no cost in ASR; if the student does harm, further as long as the triggers stay unlearned."""
    chosen = 1.0
    if not spare or student.expected_loss() > MAX_EXPECTED_LOSS:
        chosen = path.along(INTERPOLATION_STEPS, lambda: student.effect() <= least + ASR_SLACK)
        path.move(chosen)
    for share in (one for one in BACK_OFF_STEPS if one < chosen):
        if not student.harmful():
            break
        path.move(share)
        if student.effect() > UNLEARNED_ASR:
            break
        chosen = share
    return chosen


def retreat(path: Path, student: Measurements) -> float:
    """Choose the position if no backdoor was found: as far from the suspect as the expected loss of accuracy allows.

    Between networks without batch norms, the loss is often high everywhere except near the suspect.
    """
    return path.until(RETREAT_STEPS, lambda: student.expected_loss() <= MAX_EXPECTED_LOSS)
