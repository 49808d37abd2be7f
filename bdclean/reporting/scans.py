"""What detectors found, in one network or in two, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bdclean.scanning import FEWEST, Finding, p_value, shown, stands_out
from bdclean.scanning.difference import Difference

REMAINS = 5.0
"""Percent of the images: if what was recovered in the suspect still moves more, a backdoor is left."""


def class_name(names: Sequence[str], number: int) -> str | None:
    """The name of a class, if the classes have names."""
    return names[number] if names else None


def called(number: int, name: str | None) -> str:
    """A class for people."""
    return f"{number}" if name is None else f"{number} ({name})"


@dataclass(frozen=True)
class Verdict:
    """What several detectors found in a network.

    Attributes:
        findings: One of each detector.
        alpha: From this p-value down a backdoor is said to be found.
        class_names: What the classes are called; empty if that is not known.
        compared: Of two classes, what a re-initialised copy of the network does not allow; empty if not compared.
    """

    findings: tuple[Finding, ...]
    alpha: float
    class_names: tuple[str, ...] = ()
    compared: tuple[Difference, ...] = ()

    @cached_property
    def p_value(self) -> float:
        """Over all detectors."""
        return p_value(self.findings)

    @property
    def few(self) -> bool:
        """Whether the classes are too few for one to stand out."""
        return len(self.findings[0].scores) < FEWEST

    @property
    def backdoor(self) -> bool | None:
        """Whether there is one; None if the classes are too few to tell, and the network was not compared."""
        if not self.few:
            return self.p_value <= self.alpha
        return any(one.found for one in self.compared) if any(len(one.classes) for one in self.compared) else None

    @cached_property
    def strongest(self) -> Difference:
        """Of two classes, the kind of change that differs most between the network and its copy."""
        return max(self.compared, key=lambda one: (one.found, one.share))

    @property
    def suspected(self) -> int:
        """The class that the strongest finding names: of two that were compared, the one that the other goes to."""
        if self.few and self.backdoor:
            return 1 - int(self.strongest.classes[self.strongest.forward.argmax()])
        return min(self.findings, key=lambda finding: finding.p_value).suspected

    def called(self, number: int) -> str:
        """A class for people."""
        return called(number, class_name(self.class_names, number))

    @property
    def text(self) -> str:
        """The verdict in a line."""
        p, suspected = shown(self.p_value), self.called(self.suspected)
        if self.few and self.backdoor is not None:
            one = self.strongest
            flips = (
                f"{100 * one.share:.0f} % of a class in the network alone, {100 * one.chance:.0f} % in its copy alone"
            )
            what = f"a backdoor towards class {suspected}" if self.backdoor else "no backdoor found"
            return f"{what} (compared with a re-initialised copy, {flips})"
        if self.backdoor:
            return f"a backdoor towards class {suspected} (p {p})"
        if self.backdoor is None:
            return "no saying whether there is a backdoor: of two classes none can stand out"
        return f"no backdoor found (p {p}, class {suspected} stands out most)"

    @property
    def sentence(self) -> str:
        """The same with a capital letter; names of classes stay as they are."""
        return f"{self.text[0].upper()}{self.text[1:]}"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "backdoor": self.backdoor,
            "class": self.suspected,
            "name": class_name(self.class_names, self.suspected),
            "p_value": self.p_value,
            "alpha": self.alpha,
            "compared": [one.plain() for one in self.compared],
            "detectors": [
                {
                    "detector": finding.detector,
                    "class": finding.suspected,
                    "name": class_name(self.class_names, finding.suspected),
                    "p_value": finding.p_value,
                    "searched": finding.searched,
                    "scores": [None if math.isnan(score) else round(score, 4) for score in finding.scores.tolist()],
                    "p_values": finding.p_values.tolist(),
                }
                for finding in self.findings
            ],
        }


@dataclass(frozen=True)
class Moved:
    """How many images a recovered trigger moves to its class, in percent; None if nothing was recovered.

    Attributes:
        suspect: By the suspect.
        cleansed: By the cleansed network.
    """

    suspect: float | None
    cleansed: float | None


@dataclass(frozen=True)
class Comparison:
    """What detectors found in a suspect and in the network cleansed of it.

    Attributes:
        suspect: The verdict on the suspect.
        cleansed: The verdict on the cleansed network.
        moved: What each trigger recovered in the suspect does in both.
    """

    suspect: Verdict
    cleansed: Verdict
    moved: tuple[Moved, ...]

    @property
    def outstanding(self) -> tuple[bool, ...]:
        """Whether what each detector found in the suspect is more than chance."""
        findings, alpha = self.suspect.findings, self.suspect.alpha
        return tuple(stands_out(finding, len(findings), alpha) for finding in findings)

    @property
    def recovered(self) -> list[tuple[Finding, Moved]]:
        """What is more than chance, and what its trigger does."""
        rows = zip(self.suspect.findings, self.moved, self.outstanding, strict=True)
        return [(finding, moved) for finding, moved, stands in rows if stands]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the cleansed network is not to be trusted, a clause each."""
        found = [
            f"what {finding.detector} recovered in the suspect still takes {moved.cleansed:.0f} % to class "
            f"{self.suspect.called(finding.suspected)}"
            for finding, moved in self.recovered
            if moved.cleansed is not None and moved.cleansed > REMAINS
        ]
        if self.cleansed.backdoor:
            found.append(f"a scan finds {self.cleansed.text}")
        return tuple(found)

    @property
    def evidence(self) -> tuple[str, ...]:
        """What speaks for the cleansed network, a clause each."""
        gone = [
            f"the trigger that {finding.detector} recovered moves {moved.cleansed:.1f} % of the images to class "
            f"{finding.suspected}, {moved.suspect:.1f} % before"
            for finding, moved in self.recovered
            if self.suspect.backdoor and None not in (moved.suspect, moved.cleansed)
        ]
        return (*gone, "a scan of it finds nothing") if self.cleansed.backdoor is False else tuple(gone)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        suspect = self.suspect.to_json()
        for row, moved, stands in zip(suspect["detectors"], self.moved, self.outstanding, strict=True):
            row |= {"taken": moved.suspect, "taken_cleansed": moved.cleansed, "stands_out": stands}
        return {"suspect": suspect, "cleansed": self.cleansed.to_json(), "doubts": list(self.doubts)}
