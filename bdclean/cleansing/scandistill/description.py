"""The findings of `ScanDistill` for its report."""

from __future__ import annotations

from collections.abc import Sequence

from bdclean.scanning import Finding, format_p_value
from bdclean.scanning.difference import MIN_CLASS_IMAGES, Difference, source_classes
from bdclean.tables import Description, Table


def scanned(findings: Sequence[Finding]) -> Description:
    """The table of the detectors' findings in the suspect."""
    rows = tuple((one.detector, str(one.suspected), format_p_value(one.p_value)) for one in findings)
    return (Table(("scan of the suspect", "class", "p-value"), rows),)


def comparison(differences: Sequence[Difference], left: float | None) -> Description:
    """The comparison of the suspect with a re-initialised student, and the resulting position of the weights.

    Args:
        differences: One for each search; empty if they were not compared.
        left: Position between suspect (0) and student (1), if nothing was found and the weights were interpolated.
    """
    parts: list[Table | str] = []
    if differences:
        found = source_classes(differences)
        rows = tuple(
            (
                type(one.inversion).__name__,
                f"{100 * one.share:.0f} %",
                f"{100 * one.chance:.0f} %",
                ", ".join(map(str, one.source_classes if found else ())) or "none",
            )
            for one in differences
        )
        head = ("suspect against re-initialised student", "flip the suspect alone", "the student alone", "classes")
        parts.append(Table(head, rows))
        if not any(len(one.classes) for one in differences):
            parts.append(f"No class has the {MIN_CLASS_IMAGES} images that such a comparison takes.")
    if left is not None:
        parts.append(
            "Neither the scan nor this comparison found a backdoor: the weights are "
            f"{100 * left:.0f} % of the way from the suspect's to the re-initialised student's."
        )
    return tuple(parts)
