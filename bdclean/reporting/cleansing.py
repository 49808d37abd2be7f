"""The report of a cleansing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bdclean.reporting.evidence import EVIDENCE
from bdclean.reporting.figures import confusion_figure, curve_figure, image_grid, trigger_figure
from bdclean.reporting.parts import Confusion, Example
from bdclean.reporting.provenance import provenance
from bdclean.reporting.results import Cleansing
from bdclean.reporting.scans import class_label
from bdclean.reporting.sections import Banner, Folded, Page, Part, Picture, Section, Text, Tile, Tiles, sections_of
from bdclean.reporting.verdict import verdict
from bdclean.reporting.wording import (
    EXPLAINED,
    LIMITS,
    SCAN_EXPLAINED,
    detectors,
    figure_tile,
    figures_table,
    left_out_line,
    percent,
    wide_intervals,
)
from bdclean.reporting.wording import title as title_of
from bdclean.scanning import format_p_value
from bdclean.tables import Cell, Table

LEAST_KEPT = 10
"""Number of classes with the smallest share of kept predictions that the terminal lists."""


def page(result: Cleansing) -> Page:
    """The report, with all sections that have content."""
    subtitle = f"{result.paths.checkpoint or 'a network in memory'} \u2192 {result.paths.output}, {result.method}"
    sections = sections_of(result, SECTIONS)
    conclusion = result.conclusion
    if conclusion is None:
        return Page("Cleansing report", subtitle, sections)
    title, kind = verdict(result)
    banners = [Banner(conclusion.sentence, kind, title)]
    closing = f"{title}.\n{conclusion.sentence}"
    if result.left_out:
        banners.append(Banner(left_out := left_out_line(result.left_out), "warning"))
        closing += f"\n{left_out}"
    return Page("Cleansing report", subtitle, sections, tuple(banners), closing)


def _figures(result: Cleansing) -> Section:
    networks = {"suspect": result.suspect, "cleansed": result.cleansed}
    table = figures_table(networks)
    brief = [table.plain(), *wide_intervals(networks)]
    if result.der is not None:
        brief.append(f"DER {result.der:.2f}")
    return Section("Figures", (_tiles(result), Text(EXPLAINED, explains=True)), "\n".join(brief))


def _tiles(result: Cleansing) -> Tiles:
    """All known figures, before and after cleansing."""
    before = result.suspect.named()
    tiles = [
        figure_tile(title_of(name), figure, before.get(name))
        for name, figure in result.cleansed.named().items()
        if figure.percent is not None
    ]
    if result.scan is not None:
        for finding, asr in result.scan.recovered:
            if asr.cleansed is not None:
                title = f"ASR of the recovered trigger ({finding.detector})"
                tiles.append(Tile(title, f"{asr.cleansed:.2f} %", f"{percent(asr.suspect)} %"))
    return Tiles(tuple(tiles))


def _input_and_method(result: Cleansing) -> Section:
    model, counts = result.subject.description, result.counts
    images = f"{counts.unlabeled:,}, of which the method used {counts.used:,}"
    images += f"; {counts.held_out:,} are held out to measure agreement" if counts.held_out else ""
    images += f"; {counts.unreadable:,} unreadable files are left out" if counts.unreadable else ""
    size = f"{model['image_size']}\u00d7{model['image_size']}"
    mean, std = (", ".join(map(str, model[name])) for name in ("mean", "std"))
    facts = Table(
        ("", ""),
        (
            ("network", f"{model['arch'] or 'a module from Python'}, {model['num_classes']} classes, {size} images"),
            ("normalisation", f"mean {mean}; std {std}"),
            ("method", f"{result.method}, {result.epochs or 0} epochs"),
            (f"{result.supervision} images", images),
            ("time", f"{result.cost.seconds} s on {result.cost.device}"),
        ),
    )
    data = f" on {counts.used:,} {result.supervision} images" if counts.used else ", which uses no images,"
    agreement = result.cleansed.agreement
    count = f"{agreement.interval.images:,} " if agreement and agreement.interval else ""
    brief = (
        f"{result.method}{data} took {result.cost.seconds} s on {result.cost.device}. All figures in percent, "
        f"agreement on {count}{result.agreement_on}."
    )
    return Section("Input and method", (facts,), brief)


def _method(result: Cleansing) -> Section | None:
    if not result.description:
        return None
    parts = tuple(Text(part) if isinstance(part, str) else part for part in result.description)
    return Section("Details of the method", parts, tag="method")


def _scan(result: Cleansing) -> Section | None:
    scan = result.scan
    if scan is None:
        return None
    rows = [
        (
            before.detector,
            scan.suspect.class_label(before.suspected),
            format_p_value(before.p_value),
            scan.cleansed.class_label(after.suspected),
            format_p_value(after.p_value),
            percent(asr.suspect),
            percent(asr.cleansed),
        )
        for before, after, asr in zip(scan.suspect.findings, scan.cleansed.findings, scan.recovered_asr, strict=True)
    ]
    positive = [row for row, significant in zip(rows, scan.significant, strict=True) if significant]
    negative = [row for row, significant in zip(rows, scan.significant, strict=True) if not significant]
    verdicts = (Text(f"Suspect: {scan.suspect.text}."), Text(f"Cleansed network: {scan.cleansed.text}."))
    parts: list[Part] = [*verdicts, *([_findings(positive)] if positive else [])]
    parts += [triggered(one) for one in result.recovered if one.significant]
    rest = [triggered(one) for one in result.recovered if not one.significant]
    if negative:
        parts.append(Folded(f"{detectors(len(negative))} without a finding", (_findings(negative), *rest)))
    parts.append(Text(SCAN_EXPLAINED, explains=True))
    brief = f"Scan of the suspect: {scan.suspect.text}\nScan of the cleansed network: {scan.cleansed.text}"
    return Section("Scan", tuple(parts), brief)


def _findings(rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        ("detector", "class", "p-value", "class", "p-value", "suspect, %", "cleansed, %"),
        tuple(rows),
        (("", 1), ("suspect", 2), ("cleansed network", 2), ("ASR of the recovered trigger", 2)),
    )


def triggered(example: Example, tag: str = "") -> Picture:
    """Clean images, triggered images and their difference, labelled."""
    return Picture(example.title, partial(trigger_figure, example.clean, example.triggered), tag)


def _movements(result: Cleansing) -> Section | None:
    if not result.classes:
        return None
    rows = [
        (
            class_label(one.number, one.name),
            str(one.suspect),
            str(one.cleansed),
            percent(one.kept),
            Cell("", bar=one.kept),
        )
        for one in result.classes
    ]
    explained = (
        f"Number of {result.agreement_on} that each network assigns to a class, and the share of the suspect's images "
        "that keep their class."
    )
    parts = (Text(explained, explains=True), Table(("class", "suspect", "cleansed", "kept, %", ""), tuple(rows)))
    # With labels, ACC is more informative.
    brief = _least_kept(result) if result.suspect.acc.percent is None else ""
    return Section("Predictions by class", parts, brief)


def _least_kept(result: Cleansing) -> str:
    ranked = sorted((one for one in result.classes if one.kept is not None), key=lambda one: one.kept or 0.0)
    rows = [
        (str(one.number), str(one.suspect), str(one.cleansed), percent(one.kept), one.name or "")
        for one in ranked[:LEAST_KEPT]
    ]
    table = Table(("class", "suspect", "cleansed", "kept, %", ""), tuple(rows))
    return f"\nClasses that kept the smallest share of the suspect's predictions:\n{table.plain()}"


def _training(result: Cleansing) -> Section | None:
    if not result.curves:
        return None
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, values in result.curves.items():
        loss = name.endswith("loss")
        groups.setdefault("loss" if loss else "percent", {})[name if loss else title_of(name.partition("/")[2])] = (
            values
        )
    curves = (Picture("", partial(curve_figure, group, unit)) for unit, group in groups.items())
    return Section("Training", tuple(curves))


def _pictures(result: Cleansing) -> Section | None:
    parts: list[Part] = [triggered(example, "trigger/clean, triggered, difference") for example in result.examples]
    names = result.subject.class_names
    parts += [confusion(one, names) for one in result.confusions]
    if result.unlabeled is not None:
        parts.append(Folded("Unlabeled images", (Picture("", partial(image_grid, result.unlabeled, 8)),)))
    return Section("Images", tuple(parts)) if parts else None


def confusion(one: Confusion, names: Sequence[str] = ()) -> Picture:
    """A confusion matrix."""
    title = f"{one.network}, {one.part} images"
    return Picture(title, partial(confusion_figure, one.matrix, title, names), f"confusion/{one.part} {one.network}")


def _limits(result: Cleansing) -> Section:
    return Section("Limits", (Text("\n".join(LIMITS), explains=True),))


def _provenance(result: Cleansing) -> Section:
    return provenance(result.paths.checkpoint, result.cost.device, result.paths.output)


SECTIONS = (
    *(_figures, _scan, _pictures),
    *EVIDENCE,
    *(_movements, _input_and_method, _method, _training, _limits, _provenance),
)
"""The sections in their order."""
