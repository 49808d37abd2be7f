"""What each part of ScanDistill adds: methods that lack one, for `bdclean benchmark`.

    PYTHONPATH=benchmarks bdclean benchmark --config benchmarks/ablation.yaml

Each is the class with one thing undone; what options undo stands in the configuration.
"""

from __future__ import annotations

from unittest.mock import patch

from torch import Tensor

from bdclean.cleansing import ScanDistill, scandistill
from bdclean.scanning import Inversion


class Blind(ScanDistill):
    """Without what the scan finds: re-initialised and distilled, as where no class stands out."""

    @property
    def aims(self) -> list[tuple[Inversion, int]]:
        """None."""
        return []


class FoundInSuspect(ScanDistill):
    """Without the changes that are found in the student."""

    def changed(self, images: Tensor) -> Tensor:
        """With those of the suspect alone."""
        with patch.object(self, "changes", self.changes[len(self.aims) :]):
            return super().changed(images)


class FoundInStudent(ScanDistill):
    """Without the changes that are found in the suspect."""

    def changed(self, images: Tensor) -> Tensor:
        """With those of the student alone."""
        with patch.object(self, "changes", self.changes[: len(self.aims)]):
            return super().changed(images)


class AsTrained(ScanDistill):
    """The student's weights as they are in the end."""

    def finish(self) -> None:
        """Neither beyond them nor back to the suspect's."""
        with patch.object(scandistill, "ON", ()), patch.object(scandistill, "BACK", ()):
            super().finish()
