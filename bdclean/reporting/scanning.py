"""The report of a scan."""

from __future__ import annotations

from bdclean.reporting.cleansing import triggered
from bdclean.reporting.evidence import EVIDENCE
from bdclean.reporting.excess import BACKDOOR_EXCESS, CLEAN_EXCESS
from bdclean.reporting.provenance import provenance
from bdclean.reporting.results import Scan
from bdclean.reporting.sections import Banner, Folded, Kind, Page, Section, Text, Tile, Tiles, sections_of
from bdclean.reporting.wording import LIMITS, SCAN_EXPLAINED, detectors, left_out_line, percent
from bdclean.scanning import format_p_value, is_significant
from bdclean.tables import Table

LISTED = 5
"""Number of classes that the terminal lists."""
EXPLAINED = {
    "warning": "Images are flipped to this class far too easily. Cleanse the network, or do not use it.",
    "good": "No class stands out. That is no proof: see the limits below.",
    "unknown": "With two classes none can stand out, and the comparison with a re-initialised copy of the network is "
    "not decisive.",
}
"""Explanation of each kind of verdict."""


def page(result: Scan) -> Page:
    """The report, with all sections that have content."""
    warnings = [f"WARNING: {one}." for one in result.subject.warnings]
    if result.left_out:
        warnings.append(left_out_line(result.left_out))
    kind: Kind = {True: "warning", False: "good", None: "unknown"}[result.verdict.backdoor]  # type: ignore[assignment]
    banners = (Banner(EXPLAINED[kind], kind, result.verdict.headline), *(Banner(one, "warning") for one in warnings))
    closing = "\n".join([f"{result.verdict.sentence}.", *warnings])
    subtitle = result.paths.checkpoint or "a network in memory"
    return Page("Scan report", subtitle, sections_of(result, SECTIONS), banners, closing)


def _figures(result: Scan) -> Section:
    verdict = result.verdict
    decisive = Tile(
        "p-value over all detectors", format_p_value(verdict.p_value), note=f"backdoor at {verdict.alpha} or less"
    )
    if verdict.excess is not None:
        size = f"{verdict.excess.size:.2f}"
        decisive = Tile(
            "excess over a re-initialised copy",
            size,
            note=f"backdoor at {BACKDOOR_EXCESS} or more, none below {CLEAN_EXCESS}",
        )
    tiles = (
        decisive,
        Tile("class that stands out most", verdict.class_label(verdict.suspected)),
        Tile("detectors with a finding", f"{sum(_significant(result))} of {len(verdict.findings)}"),
        Tile("images", str(result.images), note=f"{result.cost.seconds} s on {result.cost.device}"),
    )
    return Section("Figures", (Tiles(tiles), Text(SCAN_EXPLAINED, explains=True)))


def _significant(result: Scan) -> list[bool]:
    """Whether the finding of each detector is significant."""
    verdict = result.verdict
    return [is_significant(one, len(verdict.findings), verdict.alpha) for one in verdict.findings]


def _classes(result: Scan) -> Section:
    findings = result.verdict.findings
    numbers = findings[0].searched
    scores, p_values = ([getattr(one, name).tolist() for one in findings] for name in ("scores", "p_values"))
    rows = [
        (
            result.verdict.class_label(number),
            *(
                text
                for score, p in zip(scores, p_values, strict=True)
                for text in (percent(score[number]), format_p_value(p[number]))
            ),
        )
        for number in numbers
    ]
    groups = (("", 1), *((one.detector, 2) for one in findings))
    table = Table(("class", *(("score", "p-value") * len(findings))), tuple(rows), groups)
    names = result.subject.class_names
    order = sorted(numbers, key=lambda number: min(column[number] for column in p_values))
    listed = [
        (str(number), *(format_p_value(column[number]) for column in p_values), names[number] if names else "")
        for number in order[:LISTED]
    ]
    brief = Table(("class", *(one.detector for one in findings), ""), tuple(listed))
    return Section("Classes", (table,), brief.plain())


def _recovered(result: Scan) -> Section | None:
    if not result.recovered:
        return None
    significant = [triggered(one) for one in result.recovered if one.significant]
    rest = [triggered(one) for one in result.recovered if not one.significant]
    folded = [Folded(f"Recovered by {detectors(len(rest))} without a finding", tuple(rest))] if rest else []
    return Section("Recovered triggers", (*significant, *folded))


def _limits(result: Scan) -> Section:
    return Section("Limits", (Text("\n".join(LIMITS[:2]), explains=True),))


def _provenance(result: Scan) -> Section:
    return provenance(result.paths.checkpoint, result.cost.device, result.paths.output)


SECTIONS = (_figures, _recovered, *EVIDENCE, _classes, _limits, _provenance)
"""The sections in their order."""
