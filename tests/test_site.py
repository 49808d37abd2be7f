"""The pages of the documentation that are made from docstrings."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdclean.attacks import ATTACKS
from bdclean.cleansing import FST
from tests.conftest import CONFIGS

DOCS = CONFIGS.parent / "docs"


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Any]:
    pytest.importorskip("docstring_parser")
    sys.path.insert(0, str(DOCS / "_site"))
    import catalogue

    yield catalogue
    sys.path.remove(str(DOCS / "_site"))


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
