"""Findings of detectors in one or two networks, and the verdict on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bdclean.reporting.excess import BACKDOOR_EXCESS, CLEAN_EXCESS, Excess, largest_excess
from bdclean.scanning import FEWEST, Finding, format_p_value, is_significant, p_value

REMAINS = 5.0
"""Percent of images: a trigger recovered from the suspect that flips more in the cleansed network is a remaining
backdoor."""


def class_name(names: Sequence[str], number: int) -> str | None:
    """The name of a class, if the classes have names."""
    return names[number] if names else None


def class_label(number: int, name: str | None) -> str:
    """Number and name of a class, as text."""
    return f"{number}" if name is None else f"{number} ({name})"


@dataclass(frozen=True)
class Verdict:
    """The verdict of several detectors on a network.

    Attributes:
        findings: One finding of each detector.
        alpha: A backdoor is reported if the p-value over all detectors is at most this.
        class_names: Names of the classes; empty if unknown.
        reference: The findings in another network, which decide with two classes: the cleansed network, or a partly
            re-initialised copy that was distilled from the scanned one; empty without such a network.
    """

    findings: tuple[Finding, ...]
    alpha: float
    class_names: tuple[str, ...] = ()
    reference: tuple[Finding, ...] = ()

    @cached_property
    def p_value(self) -> float:
        """The p-value over all detectors."""
        return p_value(self.findings)

    @property
    def too_few_classes(self) -> bool:
        """Whether there are too few classes for one to stand out."""
        return len(self.findings[0].scores) < FEWEST

    @property
    def backdoor(self) -> bool | None:
        """Whether the network has a backdoor; None if there are too few classes and the reference is inconclusive."""
        if not self.too_few_classes:
            return self.p_value <= self.alpha
        if self.excess is None or CLEAN_EXCESS <= self.excess.size < BACKDOOR_EXCESS:
            return None
        return self.excess.size >= BACKDOOR_EXCESS

    @cached_property
    def excess(self) -> Excess | None:
        """With two classes, the finding that differs most from the reference; None without a reference."""
        return largest_excess(self.findings, self.reference) if self.too_few_classes and self.reference else None

    @property
    def suspected(self) -> int:
        """The suspected class of the strongest finding."""
        if self.excess is not None:
            return self.excess.number
        return min(self.findings, key=lambda finding: finding.p_value).suspected

    def class_label(self, number: int) -> str:
        """Number and name of a class, as text."""
        return class_label(number, class_name(self.class_names, number))

    @property
    def text(self) -> str:
        """The verdict with its figures, in one line."""
        p, suspected = format_p_value(self.p_value), self.class_label(self.suspected)
        if self.excess is not None:
            one = self.excess
            named = {True: f"backdoor towards class {suspected}", False: "no backdoor found", None: "inconclusive"}
            verdict = named[self.backdoor]
            own, copied = (" and ".join(f"{score:.2f}" for score in two) for two in (one.scores, one.reference))
            classes = f"classes {one.number} and {1 - one.number}"
            return f"{verdict} ({one.detector} scores {own} for {classes}, and {copied} in a re-initialised copy)"
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
        return f"Backdoor towards class {self.class_label(self.suspected)}" if self.backdoor else "No backdoor found"

    @property
    def sentence(self) -> str:
        """The text with a capital first letter, and unchanged names of classes."""
        return f"{self.text[0].upper()}{self.text[1:]}"

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "backdoor": self.backdoor,
            "class": self.suspected,
            "name": class_name(self.class_names, self.suspected),
            "p_value": self.p_value,
            "alpha": self.alpha,
            "excess": None if self.excess is None else self.excess.to_json(),
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
class RecoveredASR:
    """ASR of a recovered trigger, in percent; None if no trigger was recovered.

    Attributes:
        suspect: ASR in the suspect.
        cleansed: ASR in the cleansed network.
    """

    suspect: float | None
    cleansed: float | None


@dataclass(frozen=True)
class Comparison:
    """Verdicts on a suspect and on the cleansed network.

    Attributes:
        suspect: The verdict on the suspect; its reference is the cleansed network.
        recovered_asr: ASR in both networks of the trigger that each detector recovered from the suspect.
    """

    suspect: Verdict
    recovered_asr: tuple[RecoveredASR, ...]

    @cached_property
    def cleansed(self) -> Verdict:
        """The verdict on the cleansed network."""
        return Verdict(self.suspect.reference, self.suspect.alpha, self.suspect.class_names)

    @property
    def significant(self) -> tuple[bool, ...]:
        """Whether the finding of each detector in the suspect is significant."""
        findings, alpha = self.suspect.findings, self.suspect.alpha
        return tuple(is_significant(finding, len(findings), alpha) for finding in findings)

    @property
    def recovered(self) -> list[tuple[Finding, RecoveredASR]]:
        """The significant findings in the suspect, and the ASR of their triggers."""
        rows = zip(self.suspect.findings, self.recovered_asr, self.significant, strict=True)
        return [(finding, asr) for finding, asr, significant in rows if significant]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Evidence against the cleansed network, a clause each."""
        found = [
            f"the recovered trigger of {finding.detector} still flips {asr.cleansed:.0f} % of the images to class "
            f"{self.suspect.class_label(finding.suspected)}"
            for finding, asr in self.recovered
            if asr.cleansed is not None and asr.cleansed > REMAINS
        ]
        if self.cleansed.backdoor:
            found.append(f"a scan of the cleansed network finds a {self.cleansed.text}")
        return tuple(found)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Evidence for the cleansed network, a clause each."""
        removed = [
            f"the recovered trigger of {finding.detector} flips {asr.cleansed:.1f} % of the images to class "
            f"{finding.suspected} ({asr.suspect:.1f} % before)"
            for finding, asr in self.recovered
            if self.suspect.backdoor and None not in (asr.suspect, asr.cleansed)
        ]
        return (
            (*removed, "a scan of the cleansed network finds no backdoor")
            if self.cleansed.backdoor is False
            else tuple(removed)
        )

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        suspect = self.suspect.to_json()
        for row, asr, significant in zip(suspect["detectors"], self.recovered_asr, self.significant, strict=True):
            row |= {"recovered_asr": asr.suspect, "recovered_asr_cleansed": asr.cleansed, "significant": significant}
        return {"suspect": suspect, "cleansed": self.cleansed.to_json(), "doubts": list(self.doubts)}
