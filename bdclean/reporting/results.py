"""What tasks find out, as typed values, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bdclean.cleansing.harm import Harm
from bdclean.metrics import defense_effectiveness_rate
from bdclean.reporting.measures import Figures
from bdclean.reporting.parts import ClassCount, Confusion, Cost, Counts, Example, Paths, Subject
from bdclean.reporting.scans import Comparison, Verdict
from bdclean.scanning.difference import Difference
from bdclean.tables import Description

SCHEMA = 1
"""Version of the JSON: another one whenever a key goes or changes its meaning."""
FEWEST_IMAGES = 100
"""With fewer images to compare the networks on, the result is inconclusive: if 99 agree, 4 % may yet differ."""


@dataclass(frozen=True)
class Conclusion:
    """Whether a cleansed network can be trusted.

    Attributes:
        reasons: Evidence against the cleansed network, a clause each.
        evidence: Evidence for the cleansed network, a clause each.
        images: How many images the networks were compared on.
    """

    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    images: int

    @property
    def trusted(self) -> bool | None:
        """Whether there is no evidence against it; None if too few images were compared."""
        if self.reasons:
            return False
        return True if self.images >= FEWEST_IMAGES else None

    @property
    def sentence(self) -> str:
        """One sentence that a person can act on."""
        if self.reasons:
            return f"DO NOT TRUST the cleansed network: {'; '.join(self.reasons)}."
        if self.trusted is None:
            return (
                f"Inconclusive: the cleansed network was compared with the suspect on {self.images} images, and at "
                f"least {FEWEST_IMAGES} are needed."
            )
        return f"No evidence against the cleansed network: {'; '.join(self.evidence)}."

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"trusted": self.trusted, "reasons": list(self.reasons), "sentence": self.sentence}


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Attributes:
        output: Where the network was written.
        figures: Of the network.
        confusions: The same, class by class.
        examples: Triggered images, of the test and of the training.
    """

    output: str
    figures: Figures
    confusions: tuple[Confusion, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Scan:
    """What a scan found.

    Attributes:
        verdict: The findings.
        subject: The scanned network.
        images: How many images were looked at.
        cost: What it took.
        recovered: What was recovered, on some images.
        paths: Files.
    """

    verdict: Verdict
    subject: Subject
    images: int
    cost: Cost
    recovered: tuple[Example, ...] = ()
    paths: Paths = field(default_factory=Paths)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        took = {"images": self.images, "seconds": self.cost.seconds, "device": self.cost.device}
        return {"schema": SCHEMA} | self.paths.to_json() | took | self.subject.to_json() | self.verdict.to_json()


@dataclass(frozen=True)
class Cleansing:
    """What came of a cleansing.

    Attributes:
        method: Name of the method.
        options: Of the method.
        epochs: How many it trained.
        description: What it did.
        subject: The suspect.
        suspect: Figures of the suspect.
        cleansed: Figures of the cleansed network.
        agreement_on: Which images the agreement was measured on.
        counts: The unlabeled images.
        cost: What it took.
        attack: Name of the attack, if the images are poisoned by one.
        classes: How far the predictions moved, class by class; empty if there are too many classes.
        harm: By how much the cleansed network disagrees with the suspect; None if that was not measured.
        differences: By how much more changes flip the suspect than a re-initialised student; empty if not compared.
        unlearned: Whether the cleansed network was trained to ignore what these found.
        curves: What was logged in training: name to epochs and values.
        unlabeled: (N, 3, H, W) in [0, 1], some of the unlabeled images.
        examples: Triggered test images.
        confusions: Both networks' predictions of the test images.
        scan: What a scan found in both networks; None without one.
        recovered: What it recovered in the suspect, on some images.
        conclusion: Whether the cleansed network is to be trusted; None before that is known.
        paths: Files.
    """

    method: str
    options: Mapping[str, Any]
    epochs: int | None
    description: Description
    subject: Subject
    suspect: Figures
    cleansed: Figures
    agreement_on: str
    counts: Counts
    cost: Cost
    attack: str | None = None
    classes: tuple[ClassCount, ...] = ()
    harm: Harm | None = None
    differences: tuple[Difference, ...] = ()
    unlearned: bool = False
    curves: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    unlabeled: Tensor | None = None
    examples: tuple[Example, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    scan: Comparison | None = None
    recovered: tuple[Example, ...] = ()
    conclusion: Conclusion | None = None
    paths: Paths = field(default_factory=Paths)

    @property
    def der(self) -> float | None:
        """The defense effectiveness rate, in percent; None if ACC or ASR cannot be known."""
        before, after = ((one.acc.percent, one.asr.percent) for one in (self.suspect, self.cleansed))
        if before[0] is None or before[1] is None or after[0] is None or after[1] is None:
            return None
        return defense_effectiveness_rate((before[0], before[1]), (after[0], after[1]))

    @property
    def supervision(self) -> str:
        """What was known of the images that the method had."""
        return "labelled" if self.options.get("supervision") == "labels" else "unlabeled"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        subject = self.subject.to_json()
        return {
            "schema": SCHEMA,
            "method": self.method,
            "unlabeled_images": self.counts.unlabeled,
            "seconds": self.cost.seconds,
            "device": self.cost.device,
            "suspect": self.suspect.percents(),
            "cleansed": self.cleansed.percents(),
            "agreement_on": self.agreement_on,
            "options": dict(self.options),
            "epochs": self.epochs,
            "peak_memory": self.cost.peak_memory,
            "attack": self.attack,
            "method_images": self.counts.used,
            "held_out_images": self.counts.held_out,
            "unreadable_images": self.counts.unreadable,
            "intervals": {"suspect": self.suspect.intervals(), "cleansed": self.cleansed.intervals()},
            "class_names": subject.pop("class_names"),
            "classes": [one.to_json() for one in self.classes],
            "compared": [one.plain() for one in self.differences],
            **subject,
            **self.paths.to_json(),
            "scan": None if self.scan is None else self.scan.to_json(),
            "conclusion": None if self.conclusion is None else self.conclusion.to_json(),
        }
