"""A plot of ACC lost against ASR left, with the methods that no other method beats in both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from bdclean.benchmark.rows import Row, comparable

LINEAR = 1.0
"""Up to this value, in points, the axes are linear; beyond it they are logarithmic."""
TICKS = (-10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Values with a label on an axis."""
OFFSETS = tuple((x, y) for y in (0, 9, -9, 18, -18, 27, -27) for x in (7, -7))
"""Places of a label relative to its point, in points, in order of preference: right or left of it."""


@dataclass(frozen=True)
class Point:
    """Means of a method over suspects and seeds.

    Attributes:
        method: Name of the method.
        acc_lost: ACC lost, in points.
        asr: ASR left, in percent.
    """

    method: str
    acc_lost: float
    asr: float


def points(rows: Sequence[Row]) -> list[Point]:
    """The means of each comparable method of one network and one set of images."""
    return [
        Point(name, *(statistics.fmean(row.figures[figure] for row in own) for figure in ("acc_lost", "asr")))
        for name, own in comparable(rows).items()
    ]


def front(found: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in one figure and equals or beats in the other, by rising ACC lost."""
    best: list[Point] = []
    for point in sorted(found, key=lambda one: (one.acc_lost, one.asr)):
        if not best or point.asr < best[-1].asr:
            best.append(point)
    return best


def pareto(found: Sequence[Point]) -> Figure:
    """Draw methods by ACC lost and ASR left, with a line through those of the front."""
    best = front(found)
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("symlog", linthresh=LINEAR)
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.step(*_columns(best), where="post", color="tab:blue", linewidth=1, zorder=1)
    others = [one for one in found if one not in best]
    axes.scatter(*_columns(others), color="grey", s=22)
    axes.scatter(*_columns(best), color="tab:blue", s=30, zorder=3)
    axes.set_ylim(bottom=0, top=130)
    axes.margins(x=0.12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(TICKS))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("ACC lost, points (better: left)")
    axes.set_ylabel("ASR left, % (better: down)")
    axes.grid(alpha=0.3)
    figure.draw_without_rendering()
    _label(axes, [*best, *others], len(best))
    return figure


def _columns(found: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [one.acc_lost for one in found], [one.asr for one in found]


def _label(axes: Axes, found: Sequence[Point], best: int) -> None:
    """Write the name of each method beside its point, where it covers no other name or point."""
    places = axes.transData.transform([(one.acc_lost, one.asr) for one in found])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    for number, point in enumerate(found):
        for x, y in OFFSETS:
            label = axes.annotate(
                point.method,
                (point.acc_lost, point.asr),
                (x, y),
                textcoords="offset points",
                ha="left" if x > 0 else "right",
                va="center",
                fontsize=8,
                color="tab:blue" if number < best else "black",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                arrowprops=None if y == 0 else {"arrowstyle": "-", "linewidth": 0.4, "shrinkB": 3},
            )
            box = label.get_window_extent()
            if not any(box.overlaps(one) for one in taken) or (x, y) == OFFSETS[-1]:
                taken.append(box)
                break
            label.remove()
