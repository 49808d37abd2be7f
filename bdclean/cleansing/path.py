"""The straight line between the weights of two networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


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
        self.first = {name: value for name, value in suspect.state_dict().items() if value.is_floating_point()}
        self.last = {name: value.clone() for name, value in student.state_dict().items() if name in self.first}

    def move(self, share: float) -> None:
        """Give the student the weights at a share of the way; above 1 it goes on beyond its own."""
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
