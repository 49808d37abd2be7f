"""The report of a cleansing."""

from __future__ import annotations

from functools import partial

from bdclean import __version__
from bdclean.reporting.figures import confusion_figure, curve_figure, image_grid, trigger_picture
from bdclean.reporting.parts import Confusion, Example
from bdclean.reporting.results import Cleansing
from bdclean.reporting.scans import called
from bdclean.reporting.sections import Banner, Page, Part, Picture, Section, Text, sections_of
from bdclean.reporting.wording import figures_table, percent, wide_intervals
from bdclean.scanning import shown
from bdclean.tables import Cell, Table

LEAST_KEPT = 10
"""Classes that a terminal lists, of those that kept fewest predictions."""


def page(result: Cleansing) -> Page:
    """The report, with all that there is to show."""
    subtitle = (
        f"{result.paths.checkpoint or 'a network in memory'} \u2192 {result.paths.output}, by {result.method}, "
        f"bdclean {__version__}"
    )
    conclusion = result.conclusion
    if conclusion is None:
        return Page("Cleansing report", subtitle, sections_of(result, SECTIONS))
    kinds = {True: "good", False: "warning", None: "unknown"}
    banner = Banner(conclusion.sentence, kinds[conclusion.trusted])  # type: ignore[arg-type]
    return Page("Cleansing report", subtitle, sections_of(result, SECTIONS), (banner,), conclusion.sentence)


def _figures(result: Cleansing) -> Section:
    networks = {"suspect": result.suspect, "cleansed": result.cleansed}
    table = figures_table(networks)
    unknown = ": ACC needs labelled test images" if result.cleansed.acc.percent is None else ""
    unknown += ", ASR and RA these and the trigger" if result.cleansed.asr.percent is None else ""
    explained = Text(
        "In percent. ACC: accuracy on clean test images. ASR: share of triggered test images, of classes other than "
        "the target, that get the target class. RA: share of those that get their true class. Agreement: same top "
        f"class as the suspect on {result.agreement_on}. Below each figure stands its 95 % interval (Wilson): the "
        f"fewer the images, the wider. A dash is what cannot be known{unknown}.",
        explains=True,
    )
    brief = [table.plain(), *wide_intervals(networks)]
    if result.der is not None:
        brief.append(f"DER {result.der:.2f}")
    return Section("Figures", (table, explained), "\n".join(brief))


def _what_was_done(result: Cleansing) -> Section:
    said, counts = result.subject.description, result.counts
    images = f"{counts.unlabeled}, of which the method had {counts.used}"
    images += f", and {counts.held_out} are held out for the agreement" if counts.held_out else ""
    images += f"; {counts.unreadable} unreadable files left out" if counts.unreadable else ""
    size = f"{said['image_size']}\u00d7{said['image_size']}"
    mean, std = (", ".join(map(str, said[name])) for name in ("mean", "std"))
    facts = Table(
        ("", ""),
        (
            ("network", f"{said['arch'] or 'a module from Python'}, {said['num_classes']} classes, {size} images"),
            ("normalisation", f"mean {mean}; std {std}"),
            (f"{result.supervision} images", images),
            ("time", f"{result.cost.seconds} s on {result.cost.device}"),
        ),
    )
    had = f" on {counts.used} {result.supervision} images" if counts.used else ", which uses no images,"
    agreement = result.cleansed.agreement
    count = f"{agreement.interval.images} " if agreement and agreement.interval else ""
    brief = (
        f"{result.method}{had} took {result.cost.seconds} s on {result.cost.device}. All figures in percent, agreement "
        f"on {count}{result.agreement_on}."
    )
    return Section("What was done", (facts,), brief)


def _method(result: Cleansing) -> Section | None:
    if not result.description:
        return None
    parts = tuple(Text(part) if isinstance(part, str) else part for part in result.description)
    return Section("What the method did", parts, tag="method")


def _scan(result: Cleansing) -> Section | None:
    scan = result.scan
    if scan is None:
        return None
    rows = [
        (
            before.detector,
            scan.suspect.called(before.suspected),
            shown(before.p_value),
            scan.cleansed.called(after.suspected),
            shown(after.p_value),
            percent(moved.suspect),
            percent(moved.cleansed),
        )
        for before, after, moved in zip(scan.suspect.findings, scan.cleansed.findings, scan.moved, strict=True)
    ]
    table = Table(
        ("detector", "class", "p-value", "class", "p-value", "suspect", "cleansed"),
        tuple(rows),
        (("", 1), ("suspect", 2), ("cleansed", 2), ("taken there by what was recovered", 2)),
    )
    explained = (
        "A p-value says how likely it is that a class stands out as far by chance. What a detector recovered in the "
        "suspect is put onto images of other classes: the last columns say how many of them, in percent, get the class."
    )
    said = (Text(f"Suspect: {scan.suspect.sentence}."), Text(f"Cleansed: {scan.cleansed.sentence}."))
    brief = f"Scan of the suspect: {scan.suspect.text}\nof the cleansed: {scan.cleansed.text}"
    return Section("Scan", (*said, table, Text(explained, explains=True), *map(triggered, result.recovered)), brief)


def triggered(example: Example, tag: str = "") -> Picture:
    """Images without and with a trigger, and the difference."""
    return Picture(example.title, partial(trigger_picture, example.clean, example.triggered), tag)


def _movements(result: Cleansing) -> Section | None:
    if not result.classes:
        return None
    rows = [
        (called(one.number, one.name), str(one.suspect), str(one.cleansed), percent(one.kept), Cell("", bar=one.kept))
        for one in result.classes
    ]
    explained = (
        f"Of the {result.agreement_on}: how many the suspect and the cleansed network put into each class, and the "
        "share of the suspect's that stayed."
    )
    parts = (Text(explained, explains=True), Table(("class", "suspect", "cleansed", "stayed", ""), tuple(rows)))
    # Those who have labels have better to go by.
    brief = _least_kept(result) if result.suspect.acc.percent is None else ""
    return Section("How the predictions moved", parts, brief)


def _least_kept(result: Cleansing) -> str:
    had = sorted((one for one in result.classes if one.kept is not None), key=lambda one: one.kept or 0.0)
    rows = [
        (str(one.number), str(one.suspect), str(one.cleansed), percent(one.kept), one.name or "")
        for one in had[:LEAST_KEPT]
    ]
    table = Table(("class", "suspect", "cleansed", "stayed", ""), tuple(rows))
    return f"\nLeast of the suspect's predictions stayed in these classes:\n{table.plain()}"


def _training(result: Cleansing) -> Section | None:
    if not result.curves:
        return None
    curves = (Picture(name, partial(curve_figure, values)) for name, values in result.curves.items())
    return Section("Training", tuple(curves))


def _pictures(result: Cleansing) -> Section | None:
    parts: list[Part] = []
    if result.unlabeled is not None:
        parts.append(Picture("Unlabeled images", partial(image_grid, result.unlabeled, 8)))
    parts += [triggered(example, "trigger/clean, triggered, difference") for example in result.examples]
    parts += map(confusion, result.confusions)
    return Section("Pictures", tuple(parts)) if parts else None


def confusion(one: Confusion) -> Picture:
    """A confusion matrix."""
    title = f"{one.network}, {one.part} images"
    return Picture(title, partial(confusion_figure, one.matrix, title), f"confusion/{one.part} {one.network}")


SECTIONS = (_figures, _what_was_done, _method, _scan, _movements, _training, _pictures)
"""The sections in their order."""
