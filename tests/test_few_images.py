"""Figures of few images: counts and intervals."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdclean.cli.main import main
from tests.conftest import QUIET, cleanse


@pytest.fixture
def loose() -> list[str]:
    """Options with 40 unlabeled images and no labelled ones."""
    for index in range(40):
        Path("loose").mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            f"loose/{index}.png"
        )
    return ["--data.source", "null", "--data.unlabeled", "loose", "--data.num_workers", "0"]


def test_a_method_that_uses_no_images(tiny_suspect: Path, loose: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    report = cleanse(tiny_suspect, *loose, "--method", "CLP", "--data.num_unlabeled", "30")
    assert (report["unlabeled_images"], report["method_images"], report["held_out_images"]) == (30, 0, 3)
    printed = capsys.readouterr().out
    assert "CLP, which uses no images, took " in printed
    assert "agreement on 3 held-out unlabeled images." in printed
    page = Path("cleansed.html").read_text()
    assert "30, of which the method used 0; 3 are held out to measure agreement" in page


def test_a_method_that_uses_images(tiny_suspect: Path, loose: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    report = cleanse(
        tiny_suspect, *loose, "--method", "FineTune", "--trainer.max_epochs", "1", "--data.num_unlabeled", "99"
    )
    assert (report["unlabeled_images"], report["method_images"], report["held_out_images"]) == (40, 36, 4)
    output = capsys.readouterr()
    assert "FineTune on 36 unlabeled images took " in output.out
    assert "agreement on 4 held-out unlabeled images." in output.out


def test_every_report_has_intervals(tiny_suspect: Path, loose: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    report = cleanse(tiny_suspect, *loose, "--method", "CLP", "--data.num_agreement", "20")
    interval = report["intervals"]["cleansed"]["agreement"]
    assert interval["images"] == 20
    assert 0 <= interval["low"] <= report["cleansed"]["agreement"] <= interval["high"] <= 100
    assert interval["high"] - interval["low"] > 10
    assert report["intervals"]["suspect"] == {"acc": None, "asr": None, "ra": None}
    shown = f"{interval['low']:.2f} to {interval['high']:.2f}"
    assert f"cleansed agreement {shown} (20 images)." in capsys.readouterr().out
    rounded = f"{interval['low']:.1f} to {interval['high']:.1f}"
    assert f'<div class="note">{rounded} %, 20 images</div>' in Path("cleansed.html").read_text()


@pytest.mark.usefixtures("tiny_shapes")
def test_accuracies_of_few_images_have_intervals_too(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = cleanse(tiny_suspect, "--method", "CLP")
    assert [report["intervals"]["suspect"][name]["images"] for name in ("acc", "asr", "ra")] == [200, 180, 180]
    assert "suspect ACC " in capsys.readouterr().out
    main(["test", "--ckpt", str(tiny_suspect), *QUIET])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("95 % intervals"))
    assert "(200 images)" in line
    assert json.loads(Path("cleansed.json").read_text()) == report
