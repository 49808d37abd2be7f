"""Results of tasks as dataclasses, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bdclean.cleansing.harm import Harm
from bdclean.evidence import Evidence
from bdclean.metrics import defense_effectiveness_rate
from bdclean.reporting.measures import Figures
from bdclean.reporting.parts import ClassCount, Confusion, Cost, Counts, Example, Paths, Subject
from bdclean.reporting.scans import Comparison, Verdict
from bdclean.scanning.difference import Difference
from bdclean.tables import Description

SCHEMA = 2
"""Version of the JSON; it increases whenever a key is removed or changes its meaning."""
FEWEST_IMAGES = 100
"""With fewer images to compare the networks on, the result is inconclusive: 99 agreeing images still allow a
disagreement of up to 4 % (95 % interval)."""


@dataclass(frozen=True)
class Conclusion:
    """Whether a cleansed network can be trusted.

    Attributes:
        reasons: Evidence against the cleansed network, a clause each.
        evidence: Evidence for the cleansed network, a clause each.
        images: Number of images that the networks were compared on.
    """

    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    images: int

    @property
    def trusted(self) -> bool | None:
        """Whether there is no evidence against the cleansed network; None if too few images were compared."""
        if self.reasons:
            return False
        return True if self.images >= FEWEST_IMAGES else None

    @property
    def sentence(self) -> str:
        """The conclusion as one sentence."""
        if self.reasons:
            return f"DO NOT TRUST the cleansed network: {'; '.join(self.reasons)}."
        if self.trusted is None:
            return (
                f"Inconclusive: the cleansed network was compared with the suspect on {self.images} images, and at "
                f"least {FEWEST_IMAGES} are needed."
            )
        return f"No evidence against the cleansed network: {'; '.join(self.evidence)}."

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {"trusted": self.trusted, "reasons": list(self.reasons), "sentence": self.sentence}


@dataclass(frozen=True)
class Training:
    """Result of a training.

    Attributes:
        output: File that the network was written to.
        figures: Figures of the network.
        confusions: Confusion matrices on clean and triggered test images.
        examples: Triggered test images and poisoned training images.
    """

    output: str
    figures: Figures
    confusions: tuple[Confusion, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Scan:
    """Result of a scan.

    Attributes:
        verdict: The findings of the detectors and the verdict on them.
        subject: The scanned network.
        images: Number of images that the detectors used.
        cost: Time and device.
        recovered: Recovered triggers on some images.
        paths: Paths of the checkpoint and of the result.
        left_out: What did not fit into the time limit.
        evidence: What the page shows of the network; None if it was not gathered, or without a trigger.
    """

    verdict: Verdict
    subject: Subject
    images: int
    cost: Cost
    recovered: tuple[Example, ...] = ()
    paths: Paths = field(default_factory=Paths)
    left_out: tuple[str, ...] = ()
    evidence: Evidence | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        took = {
            "left_out": list(self.left_out),
            "images": self.images,
            "seconds": self.cost.seconds,
            "device": self.cost.device,
            "evidence": None if self.evidence is None else self.evidence.to_json(),
        }
        return {"schema": SCHEMA} | self.paths.to_json() | took | self.subject.to_json() | self.verdict.to_json()


@dataclass(frozen=True)
class Cleansing:
    """Result of a cleansing.

    Attributes:
        method: Name of the method.
        options: Options of the method.
        epochs: Number of training epochs.
        description: Tables and paragraphs in which the method describes its run.
        subject: The suspect.
        suspect: Figures of the suspect.
        cleansed: Figures of the cleansed network.
        agreement_on: The images that the agreement was measured on.
        counts: Numbers of unlabeled images.
        cost: Time, device and memory.
        attack: Name of the attack, if the images are poisoned.
        attack_options: Options of the attack; empty without one.
        source: Source of the labelled images, if there are any.
        classes: Predictions of each class before and after cleansing; empty if there are too many classes.
        harm: Disagreement of the cleansed network with the suspect; None if it was not measured.
        differences: How much more perturbations flip the suspect than a re-initialised student; empty if not compared.
        unlearned: Whether the cleansed network unlearned the triggers that the comparison with the student found.
        curves: Epochs and logged values of each training curve, by name.
        unlabeled: (N, 3, H, W) in [0, 1], some of the unlabeled images.
        examples: Triggered test images.
        confusions: Confusion matrices of both networks on the test images.
        scan: Findings in both networks; None without a scan.
        recovered: Triggers recovered from the suspect, on some images.
        conclusion: Whether to trust the cleansed network; None until this is decided.
        paths: Paths of the checkpoint and of the result.
        left_out: What did not fit into the time limit.
        evidence: What the page shows of both networks; None if it was not gathered, or without a trigger.
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
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
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
    left_out: tuple[str, ...] = ()
    evidence: Evidence | None = None

    @property
    def der(self) -> float | None:
        """The defense effectiveness rate, in percent; None if ACC or ASR is unknown."""
        before, after = ((one.acc.percent, one.asr.percent) for one in (self.suspect, self.cleansed))
        if before[0] is None or before[1] is None or after[0] is None or after[1] is None:
            return None
        return defense_effectiveness_rate((before[0], before[1]), (after[0], after[1]))

    @property
    def supervision(self) -> str:
        """Whether the method used `labelled` or `unlabeled` images."""
        return "labelled" if self.options.get("supervision") == "labels" else "unlabeled"

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
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
            "left_out": list(self.left_out),
            "attack": self.attack,
            "attack_options": dict(self.attack_options),
            "source": self.source,
            "method_images": self.counts.used,
            "held_out_images": self.counts.held_out,
            "unreadable_images": self.counts.unreadable,
            "intervals": {"suspect": self.suspect.intervals(), "cleansed": self.cleansed.intervals()},
            "class_names": subject.pop("class_names"),
            "classes": [one.to_json() for one in self.classes],
            "student_comparison": [one.to_json() for one in self.differences],
            **subject,
            **self.paths.to_json(),
            "scan": None if self.scan is None else self.scan.to_json(),
            "evidence": None if self.evidence is None else self.evidence.to_json(),
            "conclusion": None if self.conclusion is None else self.conclusion.to_json(),
        }
