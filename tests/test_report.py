"""Results, and what reports make of them."""

import json
from pathlib import Path

import pytest
import torch

from bdclean.metrics import Share
from bdclean.reporting import cleansing as cleansing_report
from bdclean.reporting import html, terminal
from bdclean.reporting.conclusion import conclude
from bdclean.reporting.figures import confusion_figure, drawn, trigger_picture
from bdclean.reporting.files import write_json
from bdclean.reporting.measures import Figure, Figures, measured
from bdclean.reporting.parts import ClassCount
from bdclean.reporting.sections import Page, Section, Text
from bdclean.reporting.wording import figures_table, wide_intervals
from bdclean.tables import Cell, Table, markdown
from tests.results import cleansing


def test_figures_are_null_where_there_are_none() -> None:
    found = measured([{"test/acc": 91.234}, {"test/asr": float("nan")}], {})
    assert found.percents() == {"acc": 91.23, "asr": None, "ra": None}
    assert found.intervals() == {"acc": None, "asr": None, "ra": None}


def test_intervals_are_printed_where_they_are_wide() -> None:
    suspect = measured([], {"acc": Share(9_000, 10_000), "asr": None})
    assert suspect.intervals()["acc"] == {"low": 89.4, "high": 90.57, "images": 10_000}
    assert wide_intervals({"suspect": suspect}) == []
    cleansed = measured([], {"acc": Share(18, 20), "agreement": Share(20, 20)})
    line = "suspect ACC 69.90 to 97.21 (20 images), suspect agreement 83.89 to 100.00 (20 images)"
    assert wide_intervals({"suspect": cleansed}) == [f"95 % intervals of figures of few images: {line}."]
    assert wide_intervals({"": cleansed})[0].count(": ACC 69.90") == 1


def test_figures_stand_side_by_side() -> None:
    suspect = Figures(Figure(90.0), Figure(None), Figure(1.0))
    lines = figures_table({"suspect": suspect, "cleansed": Figures(Figure(89.5), Figure(0.25), Figure(88.0))}).plain()
    assert [line.split() for line in lines.splitlines()] == [
        ["ACC", "ASR", "RA"],
        ["suspect", "90.00", "-", "1.00"],
        ["cleansed", "89.50", "0.25", "88.00"],
    ]


def test_a_table_has_every_form() -> None:
    table = Table(("layer", ""), (("conv1", Cell("16", note="few")), ("a long name", "2")))
    assert table.markdown().splitlines() == ["| layer |  |", "|---|---|", "| conv1 | 16 |", "| a long name | 2 |"]
    assert table.plain().splitlines() == ["      layer", "      conv1  16", "a long name  2"]
    assert markdown((table, "A sentence.")) == f"{table.markdown()}\n\nA sentence."
    page = html.render(Page("Some", "thing", (Section("First", (table, Text("A <b> sentence."))),)))
    assert '16<div class="note">few</div></td>' in page
    assert "<p>A &lt;b&gt; sentence.</p>" in page


def test_json_is_written_whole() -> None:
    write_json(Path("report.json"), {"asr": None})
    assert json.loads(Path("report.json").read_text()) == {"asr": None}
    assert [path.name for path in Path.cwd().iterdir()] == ["report.json"]


def test_a_result_is_plain_json_with_a_schema() -> None:
    result = cleansing(classes=(ClassCount(0, "disk", 8, 7, 6), ClassCount(1, None, 0, 1, 0)))
    content = result.to_json()
    assert json.loads(json.dumps(content)) == content
    assert content["schema"] == 1
    assert content["classes"][0] == {"class": 0, "name": "disk", "suspect": 8, "cleansed": 7, "kept": 75.0}
    assert content["classes"][1]["kept"] is None
    assert content["conclusion"] is None


@pytest.mark.parametrize("labelled", [True, False])
def test_every_form_of_a_report_ends_in_the_conclusion(labelled: bool) -> None:
    acc = Figure(90.0 if labelled else None)
    result = cleansing(
        suspect=Figures(acc=acc, asr=acc),
        cleansed=Figures(acc=acc, asr=acc, agreement=cleansing().cleansed.agreement),
        classes=(ClassCount(0, "disk", 8, 7, 6),),
        curves={"train/loss": [(1, 0.5), (2, 0.25)]},
    )
    sentence = conclude(result).sentence
    result = cleansing(**{name: getattr(result, name) for name in ("suspect", "cleansed", "classes", "curves")})
    page = cleansing_report.page(result)
    assert not page.banners
    finished = cleansing_report.page(type(result)(**vars(result) | {"conclusion": conclude(result)}))
    printed = terminal.render(finished)
    assert printed.endswith(sentence)
    assert ("DER 50.00" in printed) == labelled
    # Those who have no labels see which classes lost most.
    assert ("Least of the suspect's predictions" in printed) != labelled
    shown = html.render(finished)
    assert shown.count("<section>") == 4
    assert shown.count("data:image/png") == 1
    assert '<p class="banner good">Nothing speaks against' in shown


def test_trigger_picture_amplifies_the_difference() -> None:
    clean = torch.full((2, 3, 8, 8), 0.5)
    triggered = clean.clone()
    triggered[:, :, 0, 0] += 0.01
    picture = trigger_picture(clean, triggered)
    assert picture.shape == (3, (3 * (8 + 2) + 2) * 12, (2 * (8 + 2) + 2) * 12)
    assert picture[:, -9 * 12 - 6, 2 * 12 + 6].tolist() == [1, 1, 1]


@pytest.mark.parametrize("classes", [3, 40])
def test_confusions_are_shares_of_each_true_class(classes: int) -> None:
    matrix = 10 * torch.eye(classes, dtype=torch.long)
    matrix[0, :2] = torch.tensor([5, 15])
    figure = confusion_figure(matrix, "suspect")
    (axes,) = figure.axes
    shares = torch.as_tensor(axes.images[0].get_array().data)
    assert shares[0, :2].tolist() == [25, 75]
    assert shares.diagonal()[1:].tolist() == [100] * (classes - 1)
    # Numbers, where there is room for them.
    assert [text.get_text() for text in axes.texts] == (["25", "75", "100", "100"] if classes == 3 else [])
    picture = drawn(figure)
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert picture.float().std() > 10
