"""Decide whether to trust a cleansed network, and give the reasons."""

from __future__ import annotations

from bdclean.reporting.results import Cleansing, Conclusion
from bdclean.scanning.difference import source_classes


def conclude(result: Cleansing) -> Conclusion:
    """Derive the conclusion of a cleansing from its other results."""
    harm, scan = result.harm, result.scan
    reasons = [*result.subject.warnings, *(harm.reasons if harm else []), *(scan.doubts if scan else [])]
    evidence = []
    agreement = None if result.cleansed.agreement is None else result.cleansed.agreement.interval
    if agreement:
        evidence.append(
            f"it agrees with the suspect on {agreement.low:.1f} to {agreement.high:.1f} % of {result.agreement_on} "
            f"(95 % interval, {agreement.images:,} images)"
        )
    if harm and harm.images:
        evidence.append("no class lost more images than the suspect's uncertainty explains")
    if scan:
        evidence += scan.evidence
    if classes := source_classes(result.differences):
        found = f"triggers for single source classes ({', '.join(map(str, classes))}) were recovered from the suspect"
        if result.unlearned:
            evidence.append(f"{found} and unlearned")
        else:
            reasons.append(f"{found}, and training ended before they were unlearned")
    elif any(len(one.classes) for one in result.differences):
        evidence.append(
            "no perturbation was found that flips a single class of the suspect but not of a re-initialised student"
        )
    return Conclusion(tuple(reasons), tuple(evidence), agreement.images if agreement else 0)
