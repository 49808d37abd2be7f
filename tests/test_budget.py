"""A time limit shortens a scan, and the report names what was left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import bdclean
from bdclean import InputError, progress
from bdclean.cli.main import main
from bdclean.engine.estimate import seconds_of
from bdclean.scanning import DETECTORS, MANY, USEFUL, Budget, Detector, scan, searched
from bdclean.scanning.chosen import CANDIDATES, CONTROLS
from tests.conftest import QUICK, QUIET
from tests.strangers import SmallVGG


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661)]
)
def test_limits_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["20", "", "0m", "-5m", "5 m", "1.5h", "30m1h", "m", "99999999999s"])
def test_other_texts_are_refused_in_a_line(text: str) -> None:
    with pytest.raises(InputError, match="^budget .*: expected a time such as 90s, 20m or 1h30m$"):
        seconds_of(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr("bdclean.scanning.budget.time.perf_counter", lambda: now[0])
    return now


def test_parts_that_do_not_fit_are_left_out(clock: list[float]) -> None:
    budget = Budget(100, 1.0)
    assert budget.allows("a", 60)
    clock[0] = 60
    assert not budget.allows("b", 50)
    assert budget.allows("c", 40)
    assert budget.allows("d", 1000, required=True)
    assert budget.left_out == ["b"]


def test_what_takes_longer_than_estimated_counts_as_it_took(clock: list[float]) -> None:
    budget = Budget(100, 1.0)
    assert budget.allows("a", 20)
    clock[0] = 60
    # As slow as the first part, it would take 45 seconds.
    assert not budget.allows("b", 15)
    assert budget.allows("c", 13)


class Useless(Detector):
    """Finds nothing."""

    def score(self, network: object, images: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, None]:
        return torch.rand(num_classes), None


class Cheap(Useless):
    """The same, and costs less."""

    passes = 200


@pytest.mark.parametrize(("seconds", "names"), [(1, ["Useless"]), (150, ["Useless"]), (300, ["Cheap", "Useless"])])
def test_one_detector_is_run_in_any_case(seconds: float, names: list[str]) -> None:
    budget = Budget(seconds, 0.1)
    # The findings have the order of the detectors that were asked for.
    found = scan(lambda images: images, torch.zeros(1, 3, 8, 8), 10, [Useless(), Cheap()], budget)
    assert sorted(one.detector for one in found) == names
    assert budget.left_out == sorted({"Cheap", "Useless"} - {*names})


def test_every_detector_has_its_rank_and_its_cost() -> None:
    assert {type(kind()) for kind in DETECTORS} == {*USEFUL}
    assert all("passes" in vars(kind) for kind in USEFUL)
    assert searched(MANY) == MANY
    assert searched(1000) == CANDIDATES + CONTROLS


@pytest.mark.usefixtures("tiny_shapes")
def test_a_report_names_what_was_left_out(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdclean.tasks.announcing.seconds_per_image", lambda *_: 1.0)
    main(["scan", "--ckpt", str(tiny_suspect), *QUIET, "--budget", "20m"])
    text = capsys.readouterr().out
    assert "; about 15 hours, limited to 0:20:00" in text
    left_out = ["DenseInversion", "SparseInversion", "WarpInversion", "MaximumMargin"]
    assert f"Left out, to keep the time limit: {', '.join(left_out)}." in text
    result = json.loads(Path("scan.json").read_text())
    assert result["left_out"] == left_out
    assert [one["detector"] for one in result["detectors"]] == ["PatchInversion"]
    assert "Left out, to keep the time limit" in Path("scan.html").read_text()


@pytest.mark.usefixtures("tiny_shapes")
def test_a_limit_that_is_none_is_refused(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["scan", "--ckpt", str(tiny_suspect), *QUIET, "--budget", "soon"])
    assert "bdclean: error: --budget soon: expected a time such as" in capsys.readouterr().err
    assert not Path("scan.json").exists()


def test_two_classes_are_not_compared_if_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdclean.tasks.announcing.seconds_per_image", lambda *_: 1.0)
    options = {"enable_progress_bar": False, "accelerator": "cpu"}
    result = bdclean.scan(SmallVGG(2), torch.rand(24, 3, 32, 32), budget="3h", **options)
    assert result.verdict.backdoor is None
    assert result.left_out == ("the comparison with a re-initialised copy",)


def test_without_a_terminal_there_is_a_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("bdclean.progress.time.monotonic", lambda: now[0])
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with caplog.at_level(logging.WARNING):
        for item in progress.bar(range(6), "scan"):
            now[0] += 45
            assert item >= 0
    assert caplog.messages == ["scan: 2 of 6, 3 min left", "scan: 4 of 6, 2 min left"]
    assert list(progress.bar([], "scan")) == []


@pytest.mark.usefixtures("tiny_shapes")
def test_a_cleansing_trains_fewer_epochs(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each epoch of the few images takes an hour or so; the scan at the end takes longer.
    monkeypatch.setattr("bdclean.tasks.announcing.seconds_per_image", lambda *_: 10.0)
    words = [word for word in QUICK if word not in ("--trainer.max_epochs", "1")]
    main(["cleanse", "--ckpt", str(tiny_suspect), *words, "--method", "FineTune", "--scan", "true", "--budget", "20m"])
    text = capsys.readouterr().out
    assert "limited to 0:20:00" in text
    result = json.loads(Path("cleansed.json").read_text())
    epochs, ending = result["left_out"]
    assert epochs.endswith(" epochs")
    assert ending == "the scan of the cleansed network"
    assert f"Left out, to keep the time limit: {epochs}, {ending}." in text
    assert result["scan"] is None
    assert result["epochs"] == 1


def test_a_default_cleansing_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each epoch of the few images takes about an hour.
    monkeypatch.setattr("bdclean.tasks.announcing.seconds_per_image", lambda *_: 10.0)
    options = {"enable_progress_bar": False, "accelerator": "cpu", "return_result": True}
    _, result = bdclean.cleanse(SmallVGG(4), torch.rand(40, 3, 32, 32), budget="20m", **options)
    assert any(part.endswith("epochs") for part in result.left_out)
    assert result.cost.seconds < 60
