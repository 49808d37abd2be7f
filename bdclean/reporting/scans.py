"""Findings of detectors in one network or in two, and the verdict on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from bdclean.scanning import FEWEST, Finding, p_value, shown, stands_out

REMAINS = 5.0
"""Percent of the images: if a trigger recovered from the suspect still flips more, a backdoor is left."""

EXCESS, COMMON = 0.5, 0.25
"""With two classes, a backdoor is reported if the excess over a re-initialised copy is at least the first, and none if
it is below the second; between them the scan is inconclusive."""


def class_name(names: Sequence[str], number: int) -> str | None:
    """The name of a class, if the classes have names."""
    return names[number] if names else None


def _two(scores: Tensor, number: int) -> tuple[float, float]:
    """The score of one of two classes, and that of the other."""
    return float(scores[number]), float(scores[1 - number])


def called(number: int, name: str | None) -> str:
    """Number and name of a class."""
    return f"{number}" if name is None else f"{number} ({name})"


@dataclass(frozen=True)
class Excess:
    """Scores of two classes, beside those in a copy that was re-initialised in part and distilled from the network.

    Attributes:
        detector: The detector.
        number: The class that is further above its score in the copy than the other.
        scores: Of this class, and of the other.
        reference: The same in the copy.
    """

    detector: str
    number: int
    scores: tuple[float, float]
    reference: tuple[float, float]

    @property
    def size(self) -> float:
        """By how much the class is further above its score in the copy: what both classes lose does not count."""
        own, other = (score - reference for score, reference in zip(self.scores, self.reference, strict=True))
        return own - other


@dataclass(frozen=True)
class Verdict:
    """What several detectors found in a network.

    Attributes:
        findings: One of each detector.
        alpha: A backdoor is reported if the p-value over all detectors is at most this.
        class_names: Names of the classes; empty if they are not known.
        reference: With two classes, the findings in a copy of the network that was re-initialised in part and distilled
            from it; empty if there is none.
    """

    findings: tuple[Finding, ...]
    alpha: float
    class_names: tuple[str, ...] = ()
    reference: tuple[Finding, ...] = ()

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
        """Whether there is one; None if the classes are too few, and a reference does not tell."""
        if not self.few:
            return self.p_value <= self.alpha
        if self.excess is None or COMMON <= self.excess.size < EXCESS:
            return None
        return self.excess.size >= EXCESS

    @cached_property
    def excess(self) -> Excess | None:
        """With two classes, the finding that differs most from the reference; None without a reference."""
        pairs = zip(self.findings, self.reference, strict=True) if self.few and self.reference else ()
        found = [
            Excess(own.detector, number, _two(own.scores, number), _two(other.scores, number))
            for own, other in pairs
            if own.trigger is not None
            for number in range(2)
        ]
        return max(found, key=lambda one: one.size, default=None)

    @property
    def suspected(self) -> int:
        """The class that the strongest finding names."""
        if self.excess is not None:
            return self.excess.number
        return min(self.findings, key=lambda finding: finding.p_value).suspected

    def called(self, number: int) -> str:
        """Number and name of a class."""
        return called(number, class_name(self.class_names, number))

    @property
    def text(self) -> str:
        """The verdict in a line."""
        p, suspected = shown(self.p_value), self.called(self.suspected)
        if self.excess is not None:
            one = self.excess
            named = {True: f"backdoor towards class {suspected}", False: "no backdoor found", None: "inconclusive"}
            what = named[self.backdoor]
            own, copied = (" and ".join(f"{score:.2f}" for score in two) for two in (one.scores, one.reference))
            classes = f"classes {one.number} and {1 - one.number}"
            return f"{what} ({one.detector} scores {own} for {classes}, and {copied} in a re-initialised copy)"
        if self.backdoor:
            return f"backdoor towards class {suspected} (p {p})"
        if self.backdoor is None:
            return "inconclusive: with two classes no class can stand out"
        return f"no backdoor found (p {p}, class {suspected} stands out most)"

    @property
    def headline(self) -> str:
        """The verdict in a few words, without figures."""
        if self.backdoor is None:
            return "Inconclusive"
        return f"Backdoor towards class {self.called(self.suspected)}" if self.backdoor else "No backdoor found"

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
            "excess": None if self.excess is None else asdict(self.excess) | {"size": self.excess.size},
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
        """Evidence against the cleansed network, a clause each."""
        found = [
            f"the recovered trigger of {finding.detector} still flips {moved.cleansed:.0f} % of the images to class "
            f"{self.suspect.called(finding.suspected)}"
            for finding, moved in self.recovered
            if moved.cleansed is not None and moved.cleansed > REMAINS
        ]
        if self.cleansed.backdoor:
            found.append(f"a scan of it finds a {self.cleansed.text}")
        return tuple(found)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Evidence for the cleansed network, a clause each."""
        gone = [
            f"the recovered trigger of {finding.detector} flips {moved.cleansed:.1f} % of the images to class "
            f"{finding.suspected} ({moved.suspect:.1f} % before)"
            for finding, moved in self.recovered
            if self.suspect.backdoor and None not in (moved.suspect, moved.cleansed)
        ]
        return (*gone, "a scan of it finds no backdoor") if self.cleansed.backdoor is False else tuple(gone)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        suspect = self.suspect.to_json()
        for row, moved, stands in zip(suspect["detectors"], self.moved, self.outstanding, strict=True):
            row |= {"taken": moved.suspect, "taken_cleansed": moved.cleansed, "stands_out": stands}
        return {"suspect": suspect, "cleansed": self.cleansed.to_json(), "doubts": list(self.doubts)}
