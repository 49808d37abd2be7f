"""The pages of the documentation that are made from docstrings."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdclean import cleansing
from bdclean.attacks import ATTACKS
from bdclean.benchmark import tables
from bdclean.benchmark.rows import Row
from bdclean.cleansing import FST
from bdclean.filtering import SCORES
from bdclean.scanning import DETECTORS
from tests.conftest import CONFIGS

DOCS = CONFIGS.parent / "docs"


@pytest.fixture(scope="module")
def _site() -> Iterator[None]:
    pytest.importorskip("docstring_parser")
    sys.path.insert(0, str(DOCS / "_site"))
    yield
    sys.path.remove(str(DOCS / "_site"))


@pytest.fixture(scope="module")
def catalogue(_site: None) -> Any:
    return importlib.import_module("catalogue")


@pytest.fixture(scope="module")
def leaderboard(_site: None) -> Any:
    return importlib.import_module("leaderboard")


def test_every_class_has_a_page_with_its_options_and_paper(catalogue: Any) -> None:
    for kind in catalogue.KINDS:
        overview = catalogue.overview(kind)
        for one in kind.classes:
            page = catalogue.page(kind, one, DOCS / "results")
            assert page.startswith(f"# {one.__name__}\n")
            assert f"[{one.__name__}]({one.__name__}.md)" in overview
            for option in catalogue.options(one, kind.base):
                assert option.help
                assert f"| `{option.name}` |" in page
    assert {one.__name__ for one in catalogue.KINDS[0].classes} == set(ATTACKS)


def test_a_page_has_the_results_of_its_class(catalogue: Any) -> None:
    attacks, methods, *_ = catalogue.KINDS
    badnets = catalogue.page(attacks, ATTACKS["BadNets"], DOCS / "results")
    assert "| ScanDistill | 80.15 | 2.73 |" in badnets
    assert "| BadNets | 99.3 | 99.39 |" in catalogue.page(methods, FST, DOCS / "results")
    assert "Min, Qin, Shen, Cheng" in catalogue.page(methods, FST, DOCS / "results")
    assert "## Results" not in catalogue.page(methods, FST, Path("nowhere"))


def test_the_comparison_with_other_toolboxes_has_all_names_and_only_those_that_exist() -> None:
    lines = (DOCS / "results" / "peers.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    tables = [row for row in rows if len(row) == 4]
    known = {*ATTACKS, *cleansing.__all__, *(one.__name__ for one in (*DETECTORS, *SCORES))} - {"Cleanser"}
    assert {name for row in tables for name in re.findall(r"`(\w+)`", row[2])} == known
    # What is left out has a reason.
    left_out = [row for row in tables if row[2] == "\u2013"]
    assert len(left_out) > 20
    assert all(row[3] for row in left_out)


def test_the_leaderboard_ranks_the_methods_of_each_file(leaderboard: Any, tmp_path: Path) -> None:
    text, plots = leaderboard.page(DOCS / "results")
    for file in ("cifar10_small", "shapes_seed2"):
        part = text.partition(f"## {leaderboard.TITLES[file]}")[2].partition(f"({file}.csv)")[0]
        table = [line for line in part.splitlines() if re.match(r"\| \d+ \|", line)]
        assert len(table) == 18
        ranks = [float(line.split("|")[3]) for line in table]
        assert ranks == sorted(ranks)
        assert f"![ACC lost and ASR left]({file}.svg)" in part
        assert plots[f"{file}.svg"].startswith(b"<?xml")
    assert "With 6 suspects, no difference between 18 methods can reach p \u2264 0.05; this needs 13 suspects." in text
    # Files with fewer methods than a ranking needs have no part.
    assert "shapes_scar" not in text
    assert leaderboard.page(tmp_path)[1] == {}


def test_the_leaderboard_has_published_figures_apart(leaderboard: Any) -> None:
    text = leaderboard.page(DOCS / "results")[0].partition("## Published figures")[2]
    assert "no row here can be compared with a row above" in text
    assert "| FTSAM | -0.9 | 2.5 |" in text


def test_rows_that_are_read_back_are_those_that_were_written(leaderboard: Any, tmp_path: Path) -> None:
    rows = [
        Row("a", "n", "i", "m", 3, True, 90.0, 99.0, 1.0, 89.0, 0.5, 80.0, 97.0, 99.0, 1.0, 2.0, 512.0),
        Row("a", "n", "i", "other", 3, error="why"),
    ]
    tables.write(rows, tmp_path)
    assert leaderboard.read(tmp_path / "results.csv") == rows
