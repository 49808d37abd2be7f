"""The report of a training."""

from __future__ import annotations

from bdclean.reporting.cleansing import confusion, triggered
from bdclean.reporting.results import Training
from bdclean.reporting.sections import Page, Section, sections_of
from bdclean.reporting.wording import IN_PERCENT, figures_table, wide_intervals


def page(result: Training) -> Page:
    """The report, with all sections that have content."""
    return Page("Training", result.output, sections_of(result, SECTIONS), closing=IN_PERCENT.format("test"))


def _figures(result: Training) -> Section:
    table = figures_table({result.output: result.figures})
    return Section("Figures", (table,), "\n".join([table.plain(), *wide_intervals({"": result.figures})]), "figures")


def _pictures(result: Training) -> Section | None:
    parts = (
        *(triggered(example, f"trigger/{example.title.lower()}") for example in result.examples),
        *map(confusion, result.confusions),
    )
    return Section("Pictures", parts) if parts else None


SECTIONS = (_figures, _pictures)
"""The sections in their order."""
