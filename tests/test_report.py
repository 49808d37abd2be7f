import json
from pathlib import Path

import torch

from bdclean import report
from bdclean.metrics import Share


def test_figures_are_null_where_there_are_none() -> None:
    assert report.figures([{"test/acc": 91.234}, {"test/asr": float("nan")}]) == {"acc": 91.23, "asr": None, "ra": None}


def test_table() -> None:
    rows = {"suspect": {"acc": 90.0, "asr": None, "ra": 1.0}, "cleansed": {"acc": 89.5, "asr": 0.25, "ra": 88.0}}
    lines = report.table(rows).splitlines()
    assert lines[0].split() == ["ACC", "ASR", "RA"]
    assert lines[1].split() == ["suspect", "90.00", "-", "1.00"]
    assert lines[2].split() == ["cleansed", "89.50", "0.25", "88.00"]


def test_json_is_written_whole() -> None:
    report.write_json(Path("report.json"), {"asr": None})
    assert json.loads(Path("report.json").read_text()) == {"asr": None}
    assert [path.name for path in Path.cwd().iterdir()] == ["report.json"]


def test_trigger_picture_amplifies_the_difference() -> None:
    clean = torch.full((2, 3, 8, 8), 0.5)
    triggered = clean.clone()
    triggered[:, :, 0, 0] += 0.01
    picture = report.trigger_picture(clean, triggered)
    assert picture.shape == (3, (3 * (8 + 2) + 2) * 12, (2 * (8 + 2) + 2) * 12)
    assert picture[:, -9 * 12 - 6, 2 * 12 + 6].tolist() == [1, 1, 1]


def test_confusion_picture_is_darkest_where_the_images_are() -> None:
    matrix = torch.tensor([[0, 10, 0], [10, 0, 0], [0, 0, 10]])
    picture = report.confusion_picture(matrix, "suspect").float().mean(0)
    cells = picture[44 : 44 + 3 * 44, 44 : 44 + 3 * 44].unfold(0, 44, 44).unfold(1, 44, 44).mean((2, 3))
    assert torch.equal(cells < 200, matrix > 0)


def test_intervals_are_printed_where_they_are_wide() -> None:
    suspect = report.intervals({"acc": Share(9_000, 10_000), "asr": None})
    assert suspect == {"acc": {"low": 89.4, "high": 90.57, "images": 10_000}, "asr": None}
    assert report.wide_intervals({"suspect": suspect}) == []
    cleansed = report.intervals({"acc": Share(18, 20), "agreement": Share(20, 20)})
    line = "suspect ACC 69.90 to 97.21 (20 images), suspect agreement 83.89 to 100.00 (20 images)"
    assert report.wide_intervals({"suspect": cleansed}) == [f"95 % intervals of figures of few images: {line}."]
    assert report.wide_intervals({"": cleansed})[0].count(": ACC 69.90") == 1
