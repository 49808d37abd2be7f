"""The report of a scan."""

from __future__ import annotations

from bdclean import __version__
from bdclean.reporting.cleansing import triggered
from bdclean.reporting.results import Scan
from bdclean.reporting.sections import Banner, Page, Section, Text, sections_of
from bdclean.reporting.wording import percent
from bdclean.scanning import shown
from bdclean.tables import Table

LISTED = 5
"""Classes that are listed in a terminal."""


def page(result: Scan) -> Page:
    """The report, with all that there is to show."""
    subtitle = f"{result.paths.checkpoint or 'a network in memory'}, bdclean {__version__}"
    warnings = [f"WARNING: {one}." for one in result.subject.warnings]
    banners = tuple(Banner(one, "warning") for one in warnings)
    closing = "\n".join([f"{result.verdict.sentence}.", *warnings])
    return Page("Scan", subtitle, sections_of(result, SECTIONS), banners, closing)


def _verdict(result: Scan) -> Section:
    if result.verdict.few:
        explained = (
            f"{result.images} images, {result.cost.seconds} s on {result.cost.device}. Of two classes none can stand "
            "out. So a copy of the network is re-initialised in part and distilled from it, which takes a backdoor "
            "away and leaves what the classes look like; a backdoor is said to be found where changes flip a class in "
            "the network alone."
        )
        return Section("Verdict", (Text(f"{result.verdict.sentence}."), Text(explained, explains=True)))
    explained = (
        f"{result.images} images, {result.cost.seconds} s on {result.cost.device}. A p-value says how likely it is by "
        f"chance that one of the classes stands out as far; a backdoor is said to be found at {result.verdict.alpha} "
        "or less, over all detectors."
    )
    return Section("Verdict", (Text(f"{result.verdict.sentence}."), Text(explained, explains=True)))


def _classes(result: Scan) -> Section:
    findings = result.verdict.findings
    numbers = findings[0].searched
    scores, p_values = ([getattr(one, name).tolist() for one in findings] for name in ("scores", "p_values"))
    rows = [
        (
            result.verdict.called(number),
            *(
                text
                for score, p in zip(scores, p_values, strict=True)
                for text in (percent(score[number]), shown(p[number]))
            ),
        )
        for number in numbers
    ]
    groups = (("", 1), *((one.detector, 2) for one in findings))
    table = Table(("class", *(("score", "p-value") * len(findings))), tuple(rows), groups)
    names = result.subject.class_names
    order = sorted(numbers, key=lambda number: min(column[number] for column in p_values))
    listed = [
        (str(number), *(shown(column[number]) for column in p_values), names[number] if names else "")
        for number in order[:LISTED]
    ]
    brief = Table(("class", *(one.detector for one in findings), ""), tuple(listed))
    return Section("Classes", (table,), brief.plain())


def _recovered(result: Scan) -> Section | None:
    if not result.recovered:
        return None
    explained = (
        "Images as they are, with what was recovered for the class that stands out most, and the difference, amplified."
    )
    return Section("What was recovered", (Text(explained, explains=True), *map(triggered, result.recovered)))


SECTIONS = (_verdict, _classes, _recovered)
"""The sections in their order."""
