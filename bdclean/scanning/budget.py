"""A time limit for a scan: which of its parts still fit, and which are left out."""

from __future__ import annotations

import time


class Budget:
    """A time limit, which starts when it is made.

    Args:
        seconds: The limit, in seconds.
        per_pass: Estimated duration of a forward pass of one image, in seconds.

    Attributes:
        left_out: The parts that did not fit.
    """

    def __init__(self, seconds: float, per_pass: float) -> None:
        self.seconds = seconds
        self.per_pass = per_pass
        self.left_out: list[str] = []
        self._started = time.perf_counter()
        self._allowed = 0.0
        """Forward passes of the parts that were allowed."""

    @property
    def remaining(self) -> float:
        """Remaining time, in seconds; at least 0."""
        return max(0.0, self.seconds - (time.perf_counter() - self._started))

    @property
    def remaining_passes(self) -> float:
        """Estimated number of forward passes of one image that still fit."""
        return self.remaining / self.per_pass

    def part(self, share: float) -> Budget:
        """A limit of a share of the remaining time, which notes what it leaves out here."""
        part = Budget(share * self.remaining, self.per_pass)
        part.left_out = self.left_out
        return part

    def allows(self, part: str, passes: float, required: bool = False) -> bool:
        """Whether a part still fits; note it as left out if it does not.

        Args:
            part: Name of the part.
            passes: Its estimated cost, in forward passes of one image.
            required: Whether the part runs in any case.
        """
        spent = time.perf_counter() - self._started
        # The parts so far may have taken longer than estimated.
        pace = max(self.per_pass, spent / self._allowed) if self._allowed else self.per_pass
        if not required and spent + passes * pace > self.seconds:
            self.left_out.append(part)
            return False
        self._allowed += passes
        return True
