"""The page that ranks methods by the results in docs/results, beside what papers published."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdclean.benchmark.pareto import Point, pareto, points
from bdclean.benchmark.published import PAPERS, Paper
from bdclean.benchmark.ranks import rank, scores
from bdclean.benchmark.rows import Row
from bdclean.benchmark.tables import ranking_explained
from bdclean.tables import Table

TITLES = {
    "cifar10_small": "CIFAR-10, small CNN, 2,500 images, labelled for methods that use labels",
    "shapes_seed2": "Embedded images, small CNN, 500 images without labels",
}
"""Titles of the files of results that have one; the others have their name."""
TEXTS = ("suspect", "network", "images", "method", "error")
"""Columns of files of results that are text."""
FEWEST = 3
"""Minimum number of methods of a file that are worth a ranking."""
HEAD = (
    "Methods by their mean rank, from the files in `docs/results`. All methods of a table cleansed the same suspects "
    "with the same images, and none of them chose a threshold by ASR. "
    "[Benchmark](../guides/benchmark.md#which-method-is-better) explains the ranks, the intervals and the tests."
)
"""Introduction of the page."""
BESIDE = (
    "Another network, longer training and other options: no row here can be compared with a row above. Means over "
    "{attacks} attacks; a negative value is ACC gained. {paper.citation}; `{paper.arch}` on {paper.source}; "
    "{paper.images}."
)
"""Explanation of a paper's figures, to format with the paper and the number of its attacks."""


def page(results: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and the plots that it shows by their file names.

    Args:
        results: Folder with the files of results.
    """
    parts = ["# Leaderboard", HEAD]
    plots = {}
    for path in sorted(results.glob("*.csv"), key=lambda one: (one.stem not in TITLES, one.stem)):
        rows = read(path)
        aligned = scores(rows)
        if len(aligned.methods) < FEWEST:
            continue
        found = points(rows)
        plots[f"{path.stem}.svg"] = _svg(found)
        parts += [
            f"## {TITLES.get(path.stem, path.stem)}",
            _ranking(rows).markdown(),
            "\n\n".join(ranking_explained(aligned).splitlines()),
            # A phone shows the plot too small to read, so it links to itself.
            f"[![ACC lost and ASR left]({path.stem}.svg)]({path.stem}.svg)",
            f"[All figures]({path.name})",
        ]
    parts.append("## Published figures")
    for paper in PAPERS:
        parts += [BESIDE.format(paper=paper, attacks=len(paper.figures)), _published(paper).markdown()]
    return "\n\n".join(parts) + "\n", plots


def read(path: Path) -> list[Row]:
    """Read the results of a benchmark that were written as CSV."""
    with open(path, encoding="utf-8", newline="") as lines:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(lines)]


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in TEXTS:
        return text
    if name == "backdoored":
        return text == "True"
    return int(text) if name == "seed" else float(text)


def _ranking(rows: Sequence[Row]) -> Table:
    means = {one.method: one for one in points(rows)}
    header = ("rank", "method", "mean rank", "95 % interval", "ACC lost", "ASR left", "better than", "worse than")
    lines = []
    for place, one in enumerate(rank(scores(rows)), 1):
        point = means[one.method]
        figures = (f"{one.rank:.1f}", f"{one.low:.1f} to {one.high:.1f}", f"{point.acc_lost:.1f}", f"{point.asr:.1f}")
        lines.append((str(place), one.method, *figures, str(one.better), str(one.worse)))
    return Table(header, tuple(lines))


def _published(paper: Paper) -> Table:
    """The means of each method over the attacks of a paper, the lowest ASR first."""
    found = []
    for number, method in enumerate(paper.methods, 1):
        lost = statistics.fmean(figures[0][0] - figures[number][0] for figures in paper.figures.values())
        left = statistics.fmean(figures[number][1] for figures in paper.figures.values())
        found.append((left, lost, method))
    rows = tuple((method, f"{lost:.1f}", f"{left:.1f}") for left, lost, method in sorted(found))
    return Table(("method", "ACC lost", "ASR left"), rows)


def _svg(found: Sequence[Point]) -> bytes:
    file = io.BytesIO()
    pareto(found).savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
