"""Draw results of a benchmark, and write its HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from bdclean import __version__
from bdclean.benchmark.pareto import pareto, points
from bdclean.benchmark.rows import Row, groups, parts
from bdclean.benchmark.tables import sections
from bdclean.checkpoint import write_whole
from bdclean.reporting import html
from bdclean.reporting.figures import DPI
from bdclean.reporting.sections import Page, Picture, Section, Text

PARETO = (
    "Means over the suspects and seeds that the ranks below count. Blue: no other method is at least as good in both, "
    "and better in one. The axes are logarithmic beyond 1."
)
"""Explanation of the plot of ACC lost and ASR left."""


def write(rows: Sequence[Row], folder: Path, command: str, more: Sequence[Section] = ()) -> None:
    """Write `heatmap.png`, `scatter.png` and the self-contained `index.html`.

    Args:
        rows: The results.
        folder: Folder of the files.
        command: The command line that repeats the benchmark.
        more: Further sections, after the others.
    """
    plots = []
    for name, title, draw in (
        ("heatmap.png", "ASR after cleansing and ACC lost, means over seeds, networks and images", heatmap),
        ("scatter.png", "ACC and ASR after cleansing", scatter),
    ):
        figure = draw(rows)
        write_whole(folder / name, partial(figure.savefig, format="png", dpi=DPI))
        plots.append(Section(title, (Picture("", partial(draw, rows)),)))
    for title, part in parts(rows).items():
        if len(found := points(part)) > 1:
            picture = Picture("", partial(pareto, found))
            plots.append(Section(f"ACC lost and ASR left{title}", (picture, Text(PARETO, explains=True))))
    legend, *tables = sections(rows)
    content = (legend, *plots, *tables, *more)
    page = Page("bdclean benchmark", f"{command}, bdclean {__version__}", content, sortable=True)
    html.write(folder / "index.html", page)


def heatmap(rows: Sequence[Row]) -> Figure:
    """Heat maps of ASR and of lost ACC, methods by suspects, means over seeds, networks and images."""
    methods = [name for (name,) in groups(rows, "method")]
    suspects = [name for (name,) in groups(rows, "suspect")]
    size = (3 + 1.3 * len(suspects), 1.6 + 0.36 * len(methods))
    figure = Figure(figsize=size, layout="constrained")
    cells = groups(rows, "method", "suspect")
    for axes, name, title, top in zip(
        figure.subplots(1, 2, sharey=True),
        ("asr", "acc_lost"),
        ("ASR after cleansing, %", "ACC lost, points"),
        (100, 10),
        strict=True,
    ):
        values = [[_mean(cells.get((method, suspect), []), name) for suspect in suspects] for method in methods]
        axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        axes.set_title(title)
        axes.set_xticks(range(len(suspects)), suspects, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(methods)), methods)
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value == value:  # not NaN
                    colour = "white" if value > 0.6 * top else "black"
                    axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def scatter(rows: Sequence[Row]) -> Figure:
    """Scatter plot of ACC against ASR, with a point for each cell of a backdoored suspect; the best are top left."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    backdoored = [row for row in rows if row.backdoored and row.asr is not None and row.acc is not None]
    markers = "osD^v<>Pp*Xhd"
    for number, ((method,), cells) in enumerate(groups(backdoored, "method").items()):
        marker = markers[number % len(markers)]
        asr, acc = ([row.figures[name] for row in cells] for name in ("asr", "acc"))
        axes.scatter(asr, acc, label=method, marker=marker, alpha=0.8)
    axes.set_xlabel("ASR after cleansing, % (better: left)")
    axes.set_ylabel("ACC after cleansing, % (better: up)")
    axes.set_xlim(-3, 103)
    axes.grid(alpha=0.3)
    if backdoored:
        figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _mean(rows: Sequence[Row], name: str) -> float:
    values = [value for row in rows if (value := getattr(row, name)) is not None]
    return sum(values) / len(values) if values else float("nan")
