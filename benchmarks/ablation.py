"""What each part of ScanDistill adds: methods that lack one, for `bdclean benchmark`.

    PYTHONPATH=benchmarks bdclean benchmark --config benchmarks/ablation.yaml

Each is the class with one thing undone; what options undo stands in the configuration.
"""

from __future__ import annotations

from unittest.mock import patch

from bdclean.cleansing import ScanDistill
from bdclean.cleansing.scandistill import interpolate
from bdclean.cleansing.scandistill.aims import Aim, Changes
from bdclean.cleansing.scandistill.triggers import Triggers
from bdclean.scanning import Network


class Blind(ScanDistill):
    """Without what the scan finds: re-initialised and distilled, as where no class stands out."""

    @property
    def targeted(self) -> list[Aim]:
        """None."""
        return []


class OfSuspect(Triggers):
    """Those that are found in the suspect alone."""

    @property
    def changes(self) -> list[Changes]:
        """The suspect's."""
        return self.in_suspect


class OfStudent(Triggers):
    """Those that are found in the student alone."""

    @property
    def changes(self) -> list[Changes]:
        """The student's."""
        return self.in_student


class FoundInSuspect(ScanDistill):
    """Without the changes that are found in the student."""

    triggers_type = OfSuspect


class FoundInStudent(ScanDistill):
    """Without the changes that are found in the suspect."""

    triggers_type = OfStudent


class AsTrained(ScanDistill):
    """The student's weights as they are in the end."""

    def finish(self) -> None:
        """Neither beyond them nor back to the suspect's."""
        with patch.multiple(
            interpolate, EXTRAPOLATION_STEPS=(), INTERPOLATION_STEPS=(), BACK_OFF_STEPS=(), RETREAT_STEPS=(1.0,)
        ):
            super().finish()


class Unguarded(ScanDistill):
    """Without the guards by agreement: no way back from harm, and none where nothing was found."""

    def finish(self) -> None:
        """The weights go back or on by what was found alone."""
        with patch.multiple(interpolate, BACK_OFF_STEPS=(), RETREAT_STEPS=(1.0,)):
            super().finish()


class Uncompared(ScanDistill):
    """Without the comparison of the suspect with the re-initialised student, and without a second phase."""

    def compare(self, reference: Network) -> None:
        """Not at all."""
