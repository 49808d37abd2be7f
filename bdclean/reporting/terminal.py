"""Reports in a terminal."""

from __future__ import annotations

from bdclean.reporting.sections import Page


def render(page: Page) -> str:
    """What a terminal shows: each section in brief, and how the report ends."""
    briefs = [section.brief for section in page.sections if section.brief]
    return "\n".join([*briefs, *([page.closing] if page.closing else [])])
