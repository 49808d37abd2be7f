"""Published figures beside those of a benchmark."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bdclean.attacks import ATTACKS
from bdclean.benchmark.published import PAPERS, sections
from bdclean.benchmark.tables import Row
from bdclean.cli.classes import METHODS
from bdclean.data.sources import KINDS, open_source
from bdclean.networks.build import known_architectures
from bdclean.reporting.sections import Section, Text
from bdclean.tables import Table

ROW = Row(
    "patch", "PreAct", "2500", "ScanDistill", 0, True, suspect_acc=92.0, suspect_asr=100.0, acc=91.5, asr=1.5
)  # fmt: skip
RESULT: dict[str, Any] = {
    "attack": "BadNets",
    "attack_options": {"label_mode": "all-to-one", "poison_rate": 0.1},
    "source": "some/where/cifar10.npz",
    "network": {"arch": "preact_resnet18"},
}


def rows_of(section: Section) -> list[tuple[str, ...]]:
    (table,) = (part for part in section.parts if isinstance(part, Table))
    return [table.header, *(tuple(map(str, row)) for row in table.rows)]


def test_published_figures_are_beside_those_of_the_same_setting() -> None:
    blended = replace(ROW, suspect="picture", acc=90.0, asr=50.0)
    options: Mapping[str, Any] = RESULT | {"attack": "Blended"}
    (section,) = sections([ROW, replace(ROW, seed=1, asr=2.5), blended], [RESULT, RESULT, options])
    text, *_ = section.parts
    assert isinstance(text, Text)
    assert "ICCV 2023 (arXiv:2304.11823); 10 % of the training images poisoned, 2,500 labelled images" in text.text
    header, *rows = rows_of(section)
    assert header == ("method", "figures", "images", "patch", "picture")
    assert rows[0] == ("(suspects)", "here", "", "92.0 ± 0.0 / 100.0 ± 0.0", "92.0 / 100.0")
    assert rows[1] == ("ScanDistill", "here", "2500", "91.5 ± 0.0 / 2.0 ± 0.7", "90.0 / 50.0")
    assert rows[2] == ("(suspects)", "published", "", "91.8 / 93.8", "93.4 / 97.7")
    assert rows[-1] == ("FTSAM", "published", "", "92.2 / 1.6", "92.4 / 4.9")
    assert len(rows) == 2 + 7


@pytest.mark.parametrize(
    "other",
    [
        {"source": "shapes"},
        {"source": None},
        {"network": {"arch": "resnet18"}},
        {"attack": "TaCT"},
        {"attack": None, "attack_options": {}},
        {"attack_options": {"label_mode": "all-to-one", "poison_rate": 0.05}},
        {"attack_options": {"label_mode": "clean-label", "poison_rate": 0.1}},
    ],
    ids=str,
)
def test_nothing_is_shown_for_another_setting(other: dict[str, Any]) -> None:
    assert not sections([ROW], [RESULT | other])
    assert sections([ROW, ROW], [RESULT | other, RESULT])


def test_a_failed_cell_has_no_published_figures() -> None:
    assert not sections([replace(ROW, error="failed")], [{"error": "failed"}])


def test_rates_of_clean_label_attacks_are_not_compared() -> None:
    result = RESULT | {"attack": "SIG", "attack_options": {"label_mode": "clean-label", "poison_rate": 0.8}}
    assert rows_of(sections([ROW], [result])[0])[3][3] == "84.5 / 97.9"


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.citation[:20])
def test_papers_name_things_of_this_program(paper: Any) -> None:
    assert re.search(r"\d{4} \(arXiv:\d{4}\.\d{5}\)$", paper.citation)
    assert type(open_source(paper.source, ".", "data.source")) in KINDS
    assert paper.arch in known_architectures()
    assert set(paper.methods) <= set(METHODS)
    for (attack, mode), figures in paper.figures.items():
        assert mode in ATTACKS[attack].label_modes
        assert len(figures) == 1 + len(paper.methods)
        assert all(0 <= value <= 100 for pair in figures for value in pair)
