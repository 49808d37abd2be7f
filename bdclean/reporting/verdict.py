"""The verdict of a cleansing in a few words."""

from __future__ import annotations

from bdclean.reporting.results import Cleansing
from bdclean.reporting.sections import Kind
from bdclean.scanning.difference import source_classes


def verdict(result: Cleansing) -> tuple[str, Kind]:
    """The verdict on a cleansing, and its kind. It needs neither labels nor the trigger."""
    trusted = None if result.conclusion is None else result.conclusion.trusted
    found = _backdoor(result)
    if found is not None and _remains(result):
        return f"{found}: not removed", "warning"
    if trusted is False:
        return "Do not trust the cleansed network", "warning"
    if trusted is None:
        return "Inconclusive: too few images", "unknown"
    if found is not None:
        return f"{found}: removed", "good"
    if result.scan is None:
        return "Cleansed, without a scan", "good"
    if result.scan.suspect.backdoor is None:
        return "Inconclusive: the scan of two classes decides nothing", "unknown"
    return "No backdoor found", "good"


def _backdoor(result: Cleansing) -> str | None:
    """The backdoor that was found in the suspect; None if none was found."""
    if result.scan is not None and result.scan.suspect.backdoor:
        return f"Backdoor towards class {result.scan.suspect.class_label(result.scan.suspect.suspected)}"
    if classes := source_classes(result.differences):
        one = "class" if len(classes) == 1 else "classes"
        return f"Backdoor of source {one} {', '.join(map(str, classes))}"
    return None


def _remains(result: Cleansing) -> bool:
    """Whether a backdoor that was found is still in the cleansed network."""
    if result.scan is not None and result.scan.doubts:
        return True
    return bool(source_classes(result.differences)) and not result.unlearned
