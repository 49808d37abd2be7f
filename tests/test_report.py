"""Results and reports."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bdclean.metrics import Share
from bdclean.reporting import cleansing as cleansing_report
from bdclean.reporting import html, terminal
from bdclean.reporting.conclusion import conclude
from bdclean.reporting.figures import amplified, changed_square, confusion_figure, drawn, image_grid, trigger_figure
from bdclean.reporting.files import write_json
from bdclean.reporting.measures import Figure, Figures, measured
from bdclean.reporting.parts import ClassCount
from bdclean.reporting.provenance import provenance
from bdclean.reporting.results import Conclusion
from bdclean.reporting.scans import Comparison, RecoveredASR, Verdict
from bdclean.reporting.sections import Page, Section, Text
from bdclean.reporting.verdict import verdict
from bdclean.reporting.wording import figures_table, wide_intervals
from bdclean.tables import Cell, Table, markdown
from tests.results import cleansing, finding


def test_unknown_figures_are_null() -> None:
    found = measured([{"test/acc": 91.234}, {"test/asr": float("nan")}], {})
    assert found.percents() == {"acc": 91.23, "asr": None, "ra": None}
    assert found.intervals() == {"acc": None, "asr": None, "ra": None}


def test_wide_intervals_are_printed() -> None:
    suspect = measured([], {"acc": Share(9_000, 10_000), "asr": None})
    assert suspect.intervals()["acc"] == {"low": 89.4, "high": 90.57, "images": 10_000}
    assert wide_intervals({"suspect": suspect}) == []
    cleansed = measured([], {"acc": Share(18, 20), "agreement": Share(20, 20)})
    line = "suspect ACC 69.90 to 97.21 (20 images), suspect agreement 83.89 to 100.00 (20 images)"
    assert wide_intervals({"suspect": cleansed}) == [f"95 % intervals of figures with few images: {line}."]
    assert wide_intervals({"": cleansed})[0].count(": ACC 69.90") == 1


def test_figures_are_side_by_side() -> None:
    suspect = Figures(Figure(90.0), Figure(None), Figure(1.0))
    lines = figures_table({"suspect": suspect, "cleansed": Figures(Figure(89.5), Figure(0.25), Figure(88.0))}).plain()
    assert [line.split() for line in lines.splitlines()] == [
        ["ACC", "ASR", "RA"],
        ["suspect", "90.00", "-", "1.00"],
        ["cleansed", "89.50", "0.25", "88.00"],
    ]


def test_a_table_renders_in_every_format() -> None:
    table = Table(("layer", ""), (("conv1", Cell("16", note="few")), ("a long name", "2")))
    assert table.markdown().splitlines() == ["| layer |  |", "|---|---|", "| conv1 | 16 |", "| a long name | 2 |"]
    assert table.plain().splitlines() == ["      layer", "      conv1  16", "a long name  2"]
    assert markdown((table, "A sentence.")) == f"{table.markdown()}\n\nA sentence."
    page = html.render(Page("Some", "thing", (Section("First", (table, Text("A <b> sentence."))),)))
    assert '16<div class="note">few</div></td>' in page
    assert "<p>A &lt;b&gt; sentence.</p>" in page
    assert '<th scope="row">conv1</th>' in page


def test_json_is_written_atomically() -> None:
    write_json(Path("report.json"), {"asr": None})
    assert json.loads(Path("report.json").read_text()) == {"asr": None}
    assert [path.name for path in Path.cwd().iterdir()] == ["report.json"]


def test_a_result_is_plain_json_with_a_schema() -> None:
    result = cleansing(classes=(ClassCount(0, "disk", 8, 7, 6), ClassCount(1, None, 0, 1, 0)))
    content = result.to_json()
    assert json.loads(json.dumps(content)) == content
    assert content["schema"] == 2
    assert content["classes"][0] == {"class": 0, "name": "disk", "suspect": 8, "cleansed": 7, "kept": 75.0}
    assert content["classes"][1]["kept"] is None
    assert content["conclusion"] is None


@pytest.mark.parametrize("labelled", [True, False])
def test_every_format_of_a_report_has_the_conclusion(labelled: bool) -> None:
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
    # Without labels, the terminal lists the classes that lost most.
    assert ("Classes that kept the smallest share" in printed) != labelled
    shown = html.render(finished)
    headings = ["Figures", "Predictions by class", "Input and method", "Training", "Limits", "Provenance"]
    assert re.findall(r"<h2>(.*)</h2>", shown) == headings
    assert shown.count("data:image/svg+xml") == 1
    assert '<div class="banner good"><strong>Cleansed, without a scan</strong>' in shown
    assert "<p>No evidence against" in shown


def test_images_are_arranged_and_enlarged_and_differences_amplified() -> None:
    difference = torch.zeros(2, 3, 8, 8)
    difference[:, :, 0, 0] += 0.01
    shown = amplified(difference)
    assert shown[0, 0, 0, :2].tolist() == [1, 0.5]
    picture = image_grid(shown, 2)
    assert picture.shape == (3, (8 + 2 * 2) * 12, (2 * (8 + 2) + 2) * 12)
    assert picture[:, 2 * 12 + 6, 2 * 12 + 6].tolist() == [1, 1, 1]


def test_a_small_trigger_is_shown_enlarged() -> None:
    clean = torch.full((2, 3, 32, 32), 0.5)
    triggered = clean.clone()
    triggered[:, :, 27:31, 20:23] = 1.0
    assert changed_square(triggered - clean) == (26, 32, 20, 26)
    assert changed_square(torch.zeros(1, 3, 8, 8)) == (0, 8, 0, 8)
    small, whole = trigger_figure(clean, triggered), trigger_figure(clean, torch.ones_like(clean))
    assert small.dtype == torch.uint8
    # One more row.
    assert small.shape[1] == pytest.approx(whole.shape[1] * 4 / 3, abs=4)


def test_a_verdict_reports_whether_the_backdoor_was_removed() -> None:
    after = (finding(1.0),)
    found, clean = Verdict((finding(0.001, 3),), 0.01, ("a", "b", "c", "cat"), after), Verdict(after, 0.01, (), after)
    harmless = Conclusion((), ("it agrees",), 5000)

    def verdict_of(**parts: Any) -> tuple[str, str]:
        return verdict(cleansing(**{"conclusion": harmless} | parts))

    removed = Comparison(found, (RecoveredASR(99.0, 1.0),))
    assert verdict_of(scan=removed) == ("Backdoor towards class 3 (cat): removed", "good")
    left = Comparison(found, (RecoveredASR(99.0, 60.0),))
    assert verdict_of(scan=left) == ("Backdoor towards class 3 (cat): not removed", "warning")
    assert verdict_of(scan=Comparison(clean, (RecoveredASR(None, None),))) == ("No backdoor found", "good")
    harmful = Conclusion(("class 1 vanished",), (), 5000)
    assert verdict_of(scan=removed, conclusion=harmful) == ("Do not trust the cleansed network", "warning")
    assert verdict_of(conclusion=Conclusion((), (), 5)) == ("Inconclusive: too few images", "unknown")
    assert verdict_of() == ("Cleansed, without a scan", "good")


def test_a_report_has_its_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("suspect.pth").write_bytes(b"weights")
    monkeypatch.setattr("sys.argv", ["/usr/bin/bdclean", "cleanse", "--ckpt", "my suspect.pth"])
    (table,) = provenance("suspect.pth", "cpu", "cleansed.pth").parts
    rows = dict(table.rows)
    assert rows["SHA-256"] == hashlib.sha256(b"weights").hexdigest()
    assert rows["command"] == "bdclean cleanse --ckpt 'my suspect.pth'"
    assert rows["device"] == "cpu"
    assert "SHA-256" not in dict(provenance("gone.pth", "cpu").parts[0].rows)


def test_unknown_figures_have_no_tile() -> None:
    unlabeled = html.render(cleansing_report.page(cleansing()))
    assert '<div class="name">agreement</div><div class="value">98.60 %</div>' in unlabeled
    assert '<div class="name">ACC</div>' not in unlabeled


@pytest.mark.parametrize("classes", [3, 40])
def test_confusions_are_shares_of_each_true_class(classes: int) -> None:
    matrix = 10 * torch.eye(classes, dtype=torch.long)
    matrix[0, :2] = torch.tensor([5, 15])
    names = [f"class number {number} of many" for number in range(classes)]
    figure = confusion_figure(matrix, "suspect", names)
    (axes,) = figure.axes
    if classes == 3:
        assert axes.get_xticklabels()[1].get_text() == "class number 1\u2026"
    shares = torch.as_tensor(axes.images[0].get_array().data)
    assert shares[0, :2].tolist() == [25, 75]
    assert shares.diagonal()[1:].tolist() == [100] * (classes - 1)
    # Cells have numbers if there are few classes.
    assert [text.get_text() for text in axes.texts] == (["25", "75", "100", "100"] if classes == 3 else [])
    picture = drawn(figure)
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert picture.float().std() > 10
