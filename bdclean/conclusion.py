"""The last sentence of a cleansing report: whether the cleansed network can be trusted, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdclean.cleansing.harm import Harm
from bdclean.scanning.difference import Difference, source_classes

FEWEST_IMAGES = 100
"""With fewer images to compare the networks on, nothing speaks for the result: of 99 that agree, 4 % may yet differ."""


@dataclass(frozen=True)
class Conclusion:
    """What a report comes to.

    Attributes:
        reasons: What speaks against the cleansed network, a clause each.
        evidence: What was looked at and speaks for it, a clause each.
        images: How many images the networks were compared on.
    """

    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    images: int

    @property
    def trusted(self) -> bool | None:
        """Whether nothing speaks against it; None if too few images were compared to tell."""
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
                "No telling whether the cleansed network can be trusted: it was compared with the suspect on "
                f"{self.images} images, and that takes at least {FEWEST_IMAGES}."
            )
        return f"Nothing speaks against the cleansed network: {'; '.join(self.evidence)}."

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"trusted": self.trusted, "reasons": list(self.reasons), "sentence": self.sentence}


def conclude(
    harm: Harm | None,
    agreement: Mapping[str, float] | None,
    agreement_on: str,
    scan: Mapping[str, Any] | None,
    warnings: Sequence[str],
    differences: Sequence[Difference] = (),
    unlearned: bool = False,
) -> Conclusion:
    """Draw the conclusion of a cleansing.

    Args:
        harm: By how much the cleansed network disagrees with the suspect; None if that was not measured.
        agreement: `low` and `high` of the 95 % interval of the agreement in percent, and of how many `images` it is.
        agreement_on: Which images these are.
        scan: As `bdclean.report.compared` has it; None without a scan.
        warnings: What was said against the images or the normalisation.
        differences: By how much more changes flip the suspect than a re-initialised student; empty if not compared.
        unlearned: Whether the cleansed network was trained to ignore what these found.
    """
    reasons = [*warnings, *(harm.reasons if harm else []), *(scan["doubts"] if scan else [])]
    evidence = []
    if agreement:
        evidence.append(
            f"it agrees with the suspect on {agreement['low']:.1f} to {agreement['high']:.1f} % of {agreement_on} "
            f"(95 % interval, {agreement['images']:.0f} of them)"
        )
    if harm and harm.images:
        evidence.append("no class lost more images than the suspect is unsure about")
    if scan:
        for one in scan["suspect"]["detectors"]:
            before, after = one.get("taken"), one.get("taken_cleansed")
            if scan["suspect"]["backdoor"] and one["stands_out"] and before is not None and after is not None:
                evidence.append(
                    f"the trigger that {one['detector']} recovered moves {after:.1f} % of the images to class "
                    f"{one['class']}, {before:.1f} % before"
                )
        evidence.append("a scan of it finds nothing")
    if classes := source_classes(differences):
        found = f"triggers of single classes ({', '.join(map(str, classes))}) were found in the suspect"
        if unlearned:
            evidence.append(f"{found} and unlearned")
        else:
            reasons.append(f"{found}, and the training ended before they were unlearned")
    elif any(len(one.classes) for one in differences):
        evidence.append("nothing was found that flips single classes of the suspect and not of a re-initialised copy")
    return Conclusion(tuple(reasons), tuple(evidence), int(agreement["images"]) if agreement else 0)
