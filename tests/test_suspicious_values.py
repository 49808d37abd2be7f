"""Networks that output nan or inf, or that get images unlike their training images."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bdclean import InputError
from bdclean.cli.main import main
from bdclean.errors import Given
from bdclean.modules.symptoms import find_symptom, is_constant
from bdclean.networks import check_finite, noise
from tests.conftest import QUIET
from tests.strangers import SmallVGG


def broken(content: dict[str, Any], kind: str) -> None:
    if kind == "negative variance":
        for name, value in content["state_dict"].items():
            if "running_var" in name:
                value.fill_(-1.0)
    elif kind == "huge weights":
        for value in content["state_dict"].values():
            if value.ndim > 1:
                value.fill_(1e30)
    else:
        content["hyper_parameters"] |= {"tiny std": {"std": [1e-45] * 3}, "huge mean": {"mean": [-1e308] * 3}}[kind]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("negative variance", r"nan or inf for 100 % of the images; .* \(BatchNorm2d\) .*its running_var falls to -1"),
        ("huge weights", r"nan or inf .* is the first part to do so: its weight reaches 1e\+30"),
        ("tiny std", r"std \[1e-45"),
        ("huge mean", r"mean \[-1e\+308"),
    ],
)
@pytest.mark.parametrize("verb", ["scan", "cleanse", "test", "predict"])
def test_nan_and_inf_are_refused_at_once(
    kind: str, reason: str, verb: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    broken(content, kind)
    torch.save(content, "broken.ckpt")
    with pytest.raises(SystemExit) as caught:
        main([verb, "--ckpt", "broken.ckpt", *QUIET])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.count("\n") == 1
    assert re.search(reason, error), error
    assert [path.name for path in Path.cwd().iterdir()] == ["broken.ckpt"]


def test_images_that_make_a_network_overflow_are_refused() -> None:
    class Standardised(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return ((images - images.mean((1, 2, 3), True)) / images.std((1, 2, 3), keepdim=True)).mean((2, 3))

    images = noise(3, 8)
    check_finite(Standardised(), images, Given("model"))
    images[0] = 0
    with pytest.raises(InputError, match="model: the network outputs nan or inf for 50 % of the images"):
        check_finite(Standardised(), images, Given("model"))


def test_symptoms() -> None:
    torch.manual_seed(0)
    sure = 10 * torch.eye(10)[torch.arange(100) % 10]
    assert find_symptom(sure) is None
    images = torch.rand(100, 3, 4, 4)
    assert is_constant(sure[:1].expand(100, -1), images)
    assert not is_constant(sure[:1].expand(100, -1), images[:1].expand(100, -1, -1, -1))
    assert not is_constant(sure, images)
    assert "which is at chance" in str(find_symptom(1e-3 * torch.randn(100, 10)))
    crowded = sure.clone()
    crowded[:96] = 10 * torch.eye(10)[3] + torch.randn(96, 10)
    assert "of 100 images are predicted as class" in str(find_symptom(crowded))
    two = 10 * torch.eye(10)[torch.arange(100) % 2]
    assert "100 % of 100 images are predicted as classes" in str(find_symptom(two))
    # With two classes or few images, nothing is reported.
    assert find_symptom(10 * torch.eye(2)[torch.arange(100) % 2]) is None
    assert find_symptom(two[:10]) is None


@pytest.mark.parametrize("verb", ["scan", "cleanse"])
def test_a_constant_network_is_reported(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    network = SmallVGG()
    with torch.no_grad():
        network.classifier.weight.zero_()
    torch.save(network.state_dict(), "constant.pth")
    options = ["--model.arch", "tests.strangers.SmallVGG", "--model.mean", "none", "--data.unlabeled", "procedural"]
    fast = ["--detector", "MaximumMargin", "--exit_code", "true"] if verb == "scan" else ["--method", "CLP"]
    with pytest.raises(SystemExit) as caught:
        main([verb, "--ckpt", "constant.pth", *options, "--data.num_unlabeled", "60", *fast, *QUIET])
    assert caught.value.code == 2
    assert "--ckpt constant.pth: the network is constant" in capsys.readouterr().err


@pytest.mark.scans
@pytest.mark.parametrize("verb", ["scan", "cleanse"])
def test_a_wrong_normalisation_is_reported_everywhere(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = SmallVGG()
    with torch.no_grad():
        # For inputs in [0, 255]: with inputs in [0, 1], the logits are almost only biases.
        network.features[0].weight.div_(16)
        network.classifier.bias[4] += 5
    torch.save(network.state_dict(), "byte.pth")
    options = ["--model.arch", "tests.strangers.SmallVGG", "--model.mean", "none", "--data.unlabeled", "procedural"]
    shorter = ["--data.num_unlabeled", "60", "--output", f"out.{'json' if verb == 'scan' else 'pth'}"]
    fast = ["--detector", "DenseInversion", "--detector.sizes", "[1]"] if verb == "scan" else ["--method", "CLP"]
    main([verb, "--ckpt", "byte.pth", *options, *shorter, *fast, *QUIET])
    out = capsys.readouterr().out
    # At the beginning, and again at the end.
    assert out.count("look wrong") == 2
    assert (
        "are predicted as class 4. Normalisation (--model.mean, --model.std), channel order or image size look wrong"
        in out
    )
    assert "are predicted as class 4" in Path("out.json").read_text()
    assert 'class="banner warning"' in Path("out.html").read_text()
