"""Render reports for the terminal."""

from __future__ import annotations

from bdclean.reporting.sections import Page


def render(page: Page) -> str:
    """The brief text of each section, and the closing lines."""
    briefs = [section.brief for section in page.sections if section.brief]
    return "\n".join([*briefs, *([page.closing] if page.closing else [])])
