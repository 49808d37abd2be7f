"""The page of a filtering: how many images are flagged, and the most suspicious ones."""

from __future__ import annotations

import math
from functools import partial

from matplotlib.figure import Figure

from bdclean import escaped, printable
from bdclean.filtering import LOW_FPR
from bdclean.reporting.figures import image_grid
from bdclean.reporting.filters import Filtering
from bdclean.reporting.provenance import provenance
from bdclean.reporting.scans import class_label, class_name
from bdclean.reporting.sections import Banner, Kind, Page, Picture, Section, Text, Tile, Tiles, sections_of
from bdclean.scanning import format_p_value
from bdclean.tables import Table

SHOWN = 48
"""Number of images that the page shows."""
LISTED = 5
"""Number of images that the terminal lists."""
COLUMNS = 12
"""Images in a row of the page."""
BINS = 40
"""Bars of a histogram."""
LIMITS = (
    "A flag is not proof. The threshold also flags the given share of clean images, and more of images unlike those "
    "that set it, such as images from other cameras.",
    "An image without a flag can have a trigger: of an attack that the score misses, or that cleansing did not remove.",
)
"""Limits of a filtering, one paragraph each."""


def page(result: Filtering) -> Page:
    """The report, with all sections that have content."""
    kind: Kind = "unknown" if result.threshold.value is None else "warning" if result.flagged_count else "good"
    subtitle = f"{result.paths.checkpoint or 'a network in memory'}, {result.score}"
    banner = Banner(result.explanation, kind, result.headline)
    return Page("Filter report", subtitle, sections_of(result, SECTIONS), (banner,), _closing(result))


def _closing(result: Filtering) -> str:
    metrics = result.metrics
    lines = [result.sentence]
    if metrics is not None:
        lines.append(
            f"AUROC {metrics.auroc:.4f}, TPR {100 * metrics.tpr:.2f} % at {100 * LOW_FPR:g} % FPR; flagged: "
            f"{100 * metrics.flagged_triggered:.2f} % of {metrics.triggered:,} triggered images, "
            f"{100 * metrics.flagged_clean:.2f} % of {metrics.clean:,} clean ones."
        )
    return "\n".join(lines)


def _figures(result: Filtering) -> Section:
    limit, metrics = result.threshold, result.metrics
    by_rank = limit.value is None
    note = "by rank: no image is known to be clean" if by_rank else f"score above {limit.value:.4g}"
    tiles = [Tile("flagged images", f"{result.flagged_count:,}", note=note)]
    if not by_rank:
        share = f"{100 * limit.alpha:.3g} %"
        tiles.append(Tile("share of false alarms", share, note=f"{len(limit.clean):,} clean images"))
    if metrics is not None:
        counts = f"{metrics.triggered:,} triggered, {metrics.clean:,} clean images"
        tiles += [
            Tile("AUROC", f"{metrics.auroc:.4f}", note=counts),
            Tile(f"TPR at {100 * LOW_FPR:g} % FPR", f"{100 * metrics.tpr:.2f} %"),
            Tile("triggered images flagged", f"{100 * metrics.flagged_triggered:.2f} %"),
            Tile("clean images flagged", f"{100 * metrics.flagged_clean:.2f} %"),
        ]
    tiles.append(Tile("images", f"{len(result.images):,}", note=f"{result.cost.seconds} s on {result.cost.device}"))
    return Section("Figures", (Tiles(tuple(tiles)),))


def _most_suspicious(result: Filtering) -> Section:
    order, names = result.order, result.subject.class_names

    def name(number: int) -> str:
        return class_label(number, class_name(names, number))

    rows = []
    for place, index in enumerate(order[:SHOWN], 1):
        after = "\u2013" if result.cleansed is None else name(int(result.cleansed[index]))
        p_value = "\u2013" if result.p_values is None else format_p_value(float(result.p_values[index]))
        cells = (str(place), printable(escaped(result.images[index])), name(int(result.suspect[index])), after)
        rows.append((*cells, f"{float(result.scores[index]):#.4g}", p_value, "yes" if result.flagged[index] else "no"))
    header = ("rank", "image", "suspect", "cleansed", "score", "p-value", "flagged")
    brief = Table(("rank", "", "suspect", "cleansed", "score", "p-value", "flagged"), tuple(rows[:LISTED]))
    picture = Picture("", partial(image_grid, result.most_suspicious, COLUMNS))
    text = Text("The images with the highest scores, row by row.", explains=True)
    return Section("Most suspicious images", (text, picture, Table(header, tuple(rows))), brief.plain())


def _scores(result: Filtering) -> Section:
    return Section("Scores", (Picture("", partial(_histogram, result)),))


def _histogram(result: Filtering) -> Figure:
    """Distributions of the scores: of images that are known to be clean, and of the filtered ones."""
    figure = Figure(figsize=(5.6, 2.6), layout="constrained")
    axes = figure.subplots()
    groups = {"images": result.scores}
    if result.triggered is not None:
        groups = {"clean images": result.scores[~result.triggered], "triggered images": result.scores[result.triggered]}
    if len(result.threshold.clean):
        groups["known to be clean"] = result.threshold.clean
    span = (float(min(map(min, groups.values()))), float(max(map(max, groups.values()))))
    for label, scores in groups.items():
        axes.hist(scores.numpy(), bins=BINS, range=span, density=True, histtype="step", label=label)
    value = result.threshold.value
    if value is not None and math.isfinite(value):
        axes.axvline(value, color="grey", linestyle="--", linewidth=1, label="threshold")
    axes.set_xlabel("score", fontsize=8)
    axes.set_ylabel("density", fontsize=8)
    axes.tick_params(labelsize=8)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return figure


def _limits(result: Filtering) -> Section:
    return Section("Limits", (Text("\n".join(LIMITS), explains=True),))


def _provenance(result: Filtering) -> Section:
    return provenance(result.paths.checkpoint, result.cost.device, result.paths.output)


SECTIONS = (_figures, _most_suspicious, _scores, _limits, _provenance)
"""The sections in their order."""
