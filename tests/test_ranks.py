"""Ranks of a benchmark's methods, paired tests between them, and the plot of ACC lost against ASR left."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdclean.benchmark import page, tables
from bdclean.benchmark.pareto import Point, front, pareto, points
from bdclean.benchmark.ranks import needed_suspects, p_values, rank, resampled_means, scores
from bdclean.benchmark.rows import Row, comparable


def row(suspect: str, method: str, der: float, seed: int = 0, **more: Any) -> Row:
    usual = {"backdoored": True, "suspect_acc": 90.0, "suspect_asr": 99.0, "suspect_ra": 1.0}
    figures = {"acc": 89.0, "asr": 2 * (100 - der), "ra": 80.0, "acc_lost": 1.0}
    return Row(suspect, "n", "i", method, seed, **usual | figures | {"der": der} | more)


def grid(der: dict[str, list[float]]) -> list[Row]:
    return [row(f"s{place}", method, value) for method, values in der.items() for place, value in enumerate(values)]


def test_ranks_are_means_over_suspects_and_ties_share_a_rank() -> None:
    found = rank(scores(grid({"a": [90, 70], "b": [80, 70], "c": [99, 60]})))
    assert [(one.method, one.rank) for one in found] == [("a", 1.75), ("c", 2.0), ("b", 2.25)]
    assert all(one.low <= one.rank <= one.high for one in found)


def test_seeds_of_a_suspect_count_as_one() -> None:
    # Method a is better on one suspect with many seeds, b on two suspects with one.
    rows = [row("many", method, der, seed) for seed in range(9) for method, der in (("a", 90), ("b", 80))]
    rows += [row(suspect, method, der) for suspect in ("x", "y") for method, der in (("a", 80), ("b", 90))]
    first, second = rank(scores(rows))
    assert (first.method, second.method) == ("b", "a")
    assert first.rank == pytest.approx((2 + 1 + 1) / 3)


def test_suspects_that_say_nothing_do_not_count() -> None:
    rows = grid({"a": [90, 70], "b": [80, 75]})
    rows += [row("weak", method, 50, suspect_asr=20.0) for method in "ab"]
    rows += [row("untrained", method, 50, suspect_acc=10.0) for method in "ab"]
    rows += [row("clean", method, 50, backdoored=False) for method in "ab"]
    assert scores(rows).suspects == ("s0", "s1")
    assert comparable(rows[4:]) == {}
    assert "## Ranks" not in tables.markdown(tables.sections(rows[4:]))


def test_a_failed_cell_counts_as_an_unchanged_network() -> None:
    rows = [*grid({"a": [90, 70], "b": [80]}), Row("s1", "n", "i", "b", 0, error="why")]
    failed = comparable(rows)["b"][1]
    assert (failed.der, failed.acc_lost, failed.asr, failed.acc) == (50, 0, 99, 90)
    assert [one.tolist() for one in scores(rows).der] == [[[90, 80]], [[70, 50]]]


def test_methods_are_compared_on_what_most_of_them_were_run_on() -> None:
    rows = grid({"a": [90, 70, 60], "b": [80, 75, 65], "few": [99]})
    rows += [row("s0", "a", 85, seed=1), Row("s0", "n", "i", "broken", 0, error="why")]
    found = scores(rows)
    assert (found.methods, found.suspects) == (("a", "b"), ("s0", "s1", "s2"))
    assert found.left_out == ("few", "broken")
    assert [len(one) for one in found.der] == [1, 1, 1]
    text = tables.markdown(tables.sections(rows))
    assert "Not ranked, as they have no result or were run on fewer suspects: few, broken." in text


def exact(differences: np.ndarray) -> float:
    """Wilcoxon's signed-rank test by all signs, for differences without ties and zeros."""
    ranks = np.abs(differences).argsort().argsort() + 1
    sums = [ranks[np.array(signs)].sum() for signs in itertools.product((False, True), repeat=len(ranks))]
    least = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    return min(1.0, 2 * float(np.mean(np.array(sums) <= least)))


def test_p_values_are_those_of_all_signs_with_holms_correction() -> None:
    values = np.random.default_rng(1).normal(size=(8, 4)) + np.array([0, 1, 2, 4])
    pairs = list(itertools.combinations(range(4), 2))
    raw = {pair: exact(values[:, pair[0]] - values[:, pair[1]]) for pair in pairs}
    found = p_values(values)
    largest = 0.0
    for number, pair in enumerate(sorted(pairs, key=lambda one: raw[one])):
        largest = max(largest, min(1.0, (6 - number) * raw[pair]))
        assert found[pair] == found[pair[::-1]] == pytest.approx(largest)
    assert np.diag(found).tolist() == [1, 1, 1, 1]
    assert p_values(np.ones((5, 2))).tolist() == [[1, 1], [1, 1]]


def test_methods_differ_from_as_many_suspects_on_as_the_test_needs() -> None:
    for methods in (2, 3, 18):
        enough = needed_suspects(methods)
        der = {f"m{number}": [float(90 - 2 * number)] * enough for number in range(methods)}
        # Distinct differences, so that the test is exact.
        noise = np.linspace(0, 0.1, enough)
        rows = [
            row(one.suspect, one.method, (one.der or 0) + (int(one.method[1:]) + 1) * noise[int(one.suspect[1:])])
            for one in grid(der)
        ]
        best = rank(scores(rows))[0]
        assert (best.better, best.worse) == (methods - 1, 0)
        fewer = [one for one in rows if one.suspect != "s0"]
        assert rank(scores(fewer))[0].better == 0
        assert f"this needs {enough} suspects." in tables.ranking_explained(scores(fewer))
        assert "would do" not in tables.ranking_explained(scores(rows))


def test_the_bootstrap_draws_suspects_and_then_seeds() -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 2)) + 5 * place for place in range(4)]
    found = resampled_means(values)
    assert np.array_equal(found, resampled_means(values))
    means = np.array([one.mean(0) for one in values])
    # The variance of a mean over suspects, and that over the seeds of each.
    expected = means.var(0) / 4 + np.mean([one.var(0) / 3 for one in values], axis=0) / 4
    assert found.mean(0) == pytest.approx(means.mean(0), abs=0.2)
    assert found.var(0) == pytest.approx(expected, rel=0.15)
    assert resampled_means([np.ones((1, 3))]).tolist()[0] == [1, 1, 1]


def test_the_front_has_what_no_other_method_beats() -> None:
    rng = np.random.default_rng(0)
    found = [Point(str(number), *rng.integers(0, 8, 2).tolist()) for number in range(30)]
    best = {(one.acc_lost, one.asr) for one in front(found)}
    beaten = {
        (one.acc_lost, one.asr)
        for one in found
        for other in found
        if other.acc_lost <= one.acc_lost
        and other.asr <= one.asr
        and (other.acc_lost, other.asr) != (one.acc_lost, one.asr)
    }
    assert best == {(one.acc_lost, one.asr) for one in found} - beaten


def test_the_page_has_ranks_and_a_plot_for_each_network(tmp_path: Path) -> None:
    rows = grid({"a": [90, 70], "b": [80, 75]})
    page.write(rows, tmp_path, "command")
    text = (tmp_path / "index.html").read_text()
    assert "<h2>Ranks</h2>" in text
    assert "<h2>ACC lost and ASR left</h2>" in text
    assert text.count("data:image/svg+xml;base64,") == 3
    page.write(rows[:2], tmp_path, "command")
    assert "Ranks" not in (tmp_path / "index.html").read_text()


def test_every_method_of_the_plot_has_a_label() -> None:
    found = points(grid({f"method {number}": [50 + number / 10] for number in range(20)}))
    axes = pareto(found).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(one.method for one in found)
