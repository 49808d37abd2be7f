"""Ranks of methods with bootstrap intervals, and paired tests between methods.

The unit is the suspect, not the cell: seeds of one attack resemble each other, and to count each as evidence of its own
would make intervals too narrow and p-values too small.

Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bdclean.benchmark.rows import Row, comparable

ALPHA = 0.05
"""Largest adjusted p-value at which two methods differ."""
RESAMPLES = 2000
"""Number of bootstrap samples."""
LEVEL = 95.0
"""Confidence level of the intervals, in percent."""


@dataclass(frozen=True)
class Scores:
    """DER of methods on the same suspects with the same seeds.

    Attributes:
        methods: Names of the M methods.
        suspects: Names of the suspects.
        der: For each suspect, (seeds, M) DER in percent.
        left_out: Methods without a result, or with results on too few of the suspects.
    """

    methods: tuple[str, ...]
    suspects: tuple[str, ...]
    der: tuple[np.ndarray, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """A method among others.

    Attributes:
        method: Name of the method.
        rank: Mean rank over suspects; 1 is the best.
        low: Lower end of the interval of the mean rank.
        high: Upper end of the interval.
        better: Number of methods that it is significantly better than.
        worse: Number of methods that it is significantly worse than.
    """

    method: str
    rank: float
    low: float
    high: float
    better: int
    worse: int


def scores(rows: Sequence[Row]) -> Scores:
    """Align the DER of methods in the rows of one network and one set of images."""
    found = comparable(rows)
    cells = next(iter(found.values()), [])
    suspects = tuple(dict.fromkeys(row.suspect for row in cells))
    table = np.array([[row.der for row in own] for own in found.values()], dtype=float).T
    der = tuple(table[[row.suspect == name for row in cells]] for name in suspects)
    left_out = tuple(name for name in dict.fromkeys(row.method for row in rows) if name not in found)
    return Scores(tuple(found), suspects, der, left_out)


def rank(found: Scores) -> list[Ranked]:
    """Rank methods by DER, the best first; methods with the same DER share a rank."""
    ranks = [stats.rankdata(-one, axis=1) for one in found.der]
    means = np.mean([one.mean(0) for one in ranks], axis=0)
    low, high = np.percentile(resampled_means(ranks), [50 - LEVEL / 2, 50 + LEVEL / 2], axis=0)
    by_suspect = np.array([one.mean(0) for one in found.der])
    significant = p_values(by_suspect) <= ALPHA
    ahead = by_suspect.mean(0)[:, None] > by_suspect.mean(0)[None]
    better, worse = ((significant & one).sum(1) for one in (ahead, ahead.T))
    return [
        Ranked(found.methods[i], float(means[i]), float(low[i]), float(high[i]), int(better[i]), int(worse[i]))
        for i in np.argsort(means, kind="stable")
    ]


def resampled_means(groups_of_values: Sequence[np.ndarray]) -> np.ndarray:
    """Means over groups under a two-stage bootstrap: groups are drawn with replacement, then the values of each.

    Args:
        groups_of_values: For each group, (n, M) values.

    Returns:
        (RESAMPLES, M) means over groups of the means of each group; the same for the same values.
    """
    generator = np.random.default_rng(0)
    number = len(groups_of_values)
    total = np.zeros((RESAMPLES, groups_of_values[0].shape[1]))
    for drawn in generator.integers(number, size=(number, RESAMPLES)):
        for index, group in enumerate(groups_of_values):
            samples = (drawn == index).nonzero()[0]
            members = generator.integers(len(group), size=(len(samples), len(group)))
            total[samples] += group[members].mean(1)
    return total / number


def p_values(values: np.ndarray) -> np.ndarray:
    """Wilcoxon's signed-rank test of each pair of columns, with Holm's correction over all pairs.

    Source: Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics 1945; Holm, "A Simple Sequentially
    Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.

    Args:
        values: (n, M), a row for each suspect.

    Returns:
        (M, M) adjusted p-values, symmetric; 1 on the diagonal.
    """
    pairs = list(itertools.combinations(range(values.shape[1]), 2))
    differences = [values[:, one] - values[:, other] for one, other in pairs]
    raw = np.array([float(stats.wilcoxon(one).pvalue) if one.any() else 1.0 for one in differences])
    order = np.argsort(raw)
    factors = len(pairs) - np.arange(len(pairs))
    result = np.ones((values.shape[1], values.shape[1]))
    for index, p in zip(order, np.minimum(1, np.maximum.accumulate(factors * raw[order])), strict=True):
        one, other = pairs[index]
        result[one, other] = result[other, one] = p
    return result


def needed_suspects(methods: int) -> int:
    """Fewest suspects with which the test can tell two of several methods apart.

    With n suspects, the smallest p-value of the test is 2^(1 - n).
    """
    return 1 + math.ceil(math.log2(math.comb(methods, 2) / ALPHA))
