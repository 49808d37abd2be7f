"""Ablations of ScanDistill, for `bdclean benchmark`.

    PYTHONPATH=benchmarks bdclean benchmark --config benchmarks/ablation.yaml

Each class removes one part; ablations by options are in the configuration.
"""

from __future__ import annotations

from unittest.mock import patch

from bdclean.cleansing import ScanDistill
from bdclean.cleansing.scandistill import interpolate
from bdclean.cleansing.scandistill.aims import Aim, Changes
from bdclean.cleansing.scandistill.triggers import Triggers
from bdclean.scanning import Network


class Untargeted(ScanDistill):
    """Without the findings of the scan: re-initialise and distil, as if no class stood out."""

    @property
    def targeted(self) -> list[Aim]:
        """No aims."""
        return []


class SuspectTriggers(Triggers):
    """Only the triggers that are found in the suspect."""

    @property
    def changes(self) -> list[Changes]:
        """The suspect's triggers."""
        return self.in_suspect


class StudentTriggers(Triggers):
    """Only the triggers that are found in the student."""

    @property
    def changes(self) -> list[Changes]:
        """The student's triggers."""
        return self.in_student


class FoundInSuspect(ScanDistill):
    """Without the triggers that are found in the student."""

    triggers_type = SuspectTriggers


class FoundInStudent(ScanDistill):
    """Without the triggers that are found in the suspect."""

    triggers_type = StudentTriggers


class AsTrained(ScanDistill):
    """The student's weights at the end of training."""

    def finish(self) -> None:
        """Neither interpolate nor extrapolate."""
        with patch.multiple(
            interpolate, EXTRAPOLATION_STEPS=(), INTERPOLATION_STEPS=(), BACK_OFF_STEPS=(), RETREAT_STEPS=(1.0,)
        ):
            super().finish()


class Unguarded(ScanDistill):
    """Without interpolation to limit the loss of agreement."""

    def finish(self) -> None:
        """Interpolate or extrapolate only by the recovered triggers."""
        with patch.multiple(interpolate, BACK_OFF_STEPS=(), RETREAT_STEPS=(1.0,)):
            super().finish()


class Uncompared(ScanDistill):
    """Without the comparison of the suspect with the re-initialised student, and without a second phase."""

    def compare(self, reference: Network) -> None:
        """Do nothing."""
