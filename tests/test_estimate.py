"""About how long a cleansing takes is said before it begins."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bdclean.cli.main import main
from bdclean.engine.estimate import duration, seconds_per_step
from tests.conftest import QUICK


class Slow(nn.Module):
    """Takes time in proportion to the number of images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = torch.rand(400, 400)
        for _ in images:
            size = (size @ size).tanh()
        return size


def test_a_step_is_timed() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    fast, slow = (seconds_per_step(one, 8) for one in (network, Slow()))
    assert 0 < fast < slow


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2, "less than a minute"), (61, "about 2 minutes"), (600, "about 10 minutes"), (7000, "about 2 hours")],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("method", "said"), [("FineTune", "images, 1 epoch, on cpu"), ("CLP", "CLP: 0 images, on cpu")]
)
def test_the_first_line_says_what_is_done(
    method: str, said: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = QUICK if method == "FineTune" else [word for word in QUICK if word not in ("--trainer.max_epochs", "1")]
    main(["cleanse", "--ckpt", str(tiny_suspect), *options, "--method", method])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{method}: "))
    assert said in line
    assert line.endswith("less than a minute")
