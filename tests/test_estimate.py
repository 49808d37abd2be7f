"""Each task first prints its work and an estimate of its duration."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bdclean.cli.main import main
from bdclean.engine.estimate import duration, seconds_per_image
from tests.conftest import QUICK, QUIET, in_a_process


class Slow(nn.Module):
    """Takes time in proportion to the number of images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = torch.rand(400, 400)
        for _ in images:
            size = (size @ size).tanh()
        return size


def test_a_step_is_timed() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    fast, slow = (seconds_per_image(one, 8) for one in (network, Slow()))
    assert 0 < fast < slow


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(2, "less than a minute"), (61, "about 2 minutes"), (600, "about 10 minutes"), (7000, "about 2 hours")],
)
def test_durations_in_words(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("method", "expected"), [("FineTune", "images, 1 epoch, on cpu"), ("CLP", "CLP: 0 images, on cpu")]
)
def test_the_first_line_of_a_cleansing(
    method: str, expected: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = QUICK if method == "FineTune" else [word for word in QUICK if word not in ("--trainer.max_epochs", "1")]
    main(["cleanse", "--ckpt", str(tiny_suspect), *options, "--method", method])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{method}: "))
    assert expected in line
    assert line.endswith("less than a minute")


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("attack", "expected"),
    [("BadNets", "with BadNets: 510 images, 1 epoch, on cpu"), ("null", "without an attack: 510 images, 1 epoch")],
)
def test_the_first_line_of_a_training(attack: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--model.arch", "small_cnn", "--data.attack", attack, *QUICK])
    _, line = capsys.readouterr().out.splitlines()[:2]
    assert line.startswith(f"Training small_cnn {expected}")
    assert line.endswith("less than a minute")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_the_first_line_of_a_training_in_forked_processes() -> None:
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork", "--trainer.limit_train_batches", "1"]
    done = in_a_process("fit", "--model.arch", "small_cnn", *QUICK, *several)
    assert done.returncode == 0, done.stderr
    assert "Training small_cnn with BadNets in 2 processes on cpu\n" in done.stdout


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "Scan: 5 detectors, 10 classes, up to 512 images, on cpu"),
        (["--detector", "MaximumMargin"], "Scan: MaximumMargin, 10 classes, on cpu"),
    ],
)
def test_the_first_line_of_a_scan(
    options: list[str], expected: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["scan", "--ckpt", str(tiny_suspect), *QUIET, *options])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Scan: "))
    assert line.startswith(expected)
