"""The Python API: cleansing in one call."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bdclean
from bdclean import scanning
from tests.strangers import Auxiliary, Pooled, SmallVGG

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
OPTIONS = {"epochs": 2, **QUIET}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return SmallVGG().train()


def check(model: nn.Module, before: dict[str, torch.Tensor], cleansed: nn.Module) -> None:
    assert type(cleansed) is SmallVGG
    assert cleansed is not model
    assert not cleansed.training
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    after = cleansed.state_dict()
    assert list(after) == list(before)
    assert not torch.equal(after["features.0.weight"], before["features.0.weight"])
    assert not list(Path.cwd().glob("runs")) + list(Path.cwd().glob("*ckpt"))


def test_a_short_name_of_a_method(model: nn.Module) -> None:
    _, result = bdclean.cleanse(model, torch.rand(24, 3, 32, 32), method="BCU", return_result=True, **OPTIONS)
    assert result.method == "DistillCleanseModule"


def test_tensor_loader_and_folder(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(40, 3, 32, 32)
    first = bdclean.cleanse(model, images, **OPTIONS)
    check(model, before, first)
    loader = DataLoader(TensorDataset(images, torch.zeros(40)), batch_size=16)
    second = bdclean.cleanse(model, loader, **OPTIONS)
    check(model, before, second)
    # The same images, the same network.
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    Path("photos").mkdir()
    for index in range(20):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{index}.jpg")
    check(model, before, bdclean.cleanse(model, "photos", mean="cifar10", **OPTIONS))
    check(model, before, bdclean.cleanse(model, "procedural", mean="none", num_unlabeled=20, **OPTIONS))


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 0},
        {"max_steps": 0},
        {"limit_train_batches": 0},
        {"max_time": timedelta(0)},
        {"max_time": {"hours": 0}},
    ],
)
def test_no_step_of_training_is_refused_before_the_scan(
    model: nn.Module, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "scan", None)
    with pytest.raises(bdclean.InputError, match=r"^max_\w+ 0|^limit_\w+ 0"):
        bdclean.cleanse(model, torch.rand(40, 3, 32, 32), **OPTIONS | given)


class Stops(Callback):
    """Ends a training before its first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize("given", [{"callbacks": [Stops()]}, {"limit_train_batches": 0.0001}])
def test_a_training_without_a_step_returns_no_network(model: nn.Module, given: dict[str, Any]) -> None:
    with pytest.raises(bdclean.InputError, match="ended before the first step of training|limit_train_batches"):
        bdclean.cleanse(model, torch.rand(40, 3, 32, 32), method="Distill", **OPTIONS | given)


def test_normalised_images_are_scanned_in_the_range_of_images(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    images = ((torch.rand(3, 32, 32) - mean) / std).repeat(40, 1, 1, 1)
    scanned: list[tuple[nn.Module, torch.Tensor]] = []

    def scan(network: nn.Module, images: torch.Tensor, *_: object, **__: object) -> list[scanning.Finding]:
        scanned.append((network, images))
        return []

    monkeypatch.setattr(scanning, "scan", scan)
    bdclean.cleanse(model, images, precision="32-true", **OPTIONS)
    network, seen = scanned[0]
    assert (seen.amin((0, 2, 3)).tolist(), seen.amax((0, 2, 3)).tolist()) == ([0, 0, 0], [1, 1, 1])
    assert torch.allclose(network(seen), model.eval()(images)[: len(seen)], atol=1e-4)


def test_method_seed_and_grey_images() -> None:
    torch.manual_seed(0)
    model = Pooled(channels=1)
    images = torch.rand(20, 1, 28, 28)
    results = [
        bdclean.cleanse(model, images, method="DistillCleanseModule", seed=seed, **OPTIONS).state_dict()["conv.weight"]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_dtypes_and_frozen_weights_are_kept() -> None:
    model = Pooled().to(torch.bfloat16)
    model.conv.requires_grad_(False)
    cleansed = bdclean.cleanse(model, torch.rand(20, 3, 16, 16), **OPTIONS)
    assert cleansed.conv.weight.dtype == torch.bfloat16
    assert [parameter.requires_grad for parameter in cleansed.parameters()] == [False, False, True, True, True, True]
    assert model.conv.weight.dtype == torch.bfloat16


def test_a_network_may_return_more_outputs_in_training() -> None:
    cleansed = bdclean.cleanse(Auxiliary(), torch.rand(20, 3, 16, 16), **OPTIONS)
    assert isinstance(cleansed.train()(torch.rand(2, 3, 16, 16)), tuple)


def test_global_random_state_is_unchanged(model: nn.Module) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    bdclean.cleanse(model, torch.zeros(20, 3, 32, 32), **OPTIONS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("images", "options", "reason"),
    [
        (torch.rand(9, 32, 32), {}, r"images: torch.float32 \(9, 32, 32\)"),
        (torch.zeros(9, 3, 32, 32, dtype=torch.uint8), {}, "^mean: needed"),
        (torch.randn(9, 3, 32, 32), {"mean": "cifar10"}, "images: from -.* to .*; with mean and std"),
        (torch.rand(9, 3, 40, 40), {}, "model: does not take 40x40 images"),
        ([], {}, "images: the DataLoader yields none"),
        (["text"], {}, "images: gives str"),
        ("nowhere", {"mean": "none"}, "images nowhere: neither a folder"),
        (
            torch.rand(9, 3, 32, 32),
            {"method": "Nothing"},
            "method Nothing: no such class; there are .*DistillCleanseModule",
        ),
    ],
)
def test_impossible_arguments_are_named(model: nn.Module, images: object, options: dict[str, str], reason: str) -> None:
    with pytest.raises(bdclean.InputError, match=reason):
        bdclean.cleanse(model, images, **options, **OPTIONS)  # type: ignore[arg-type]


def test_importing_is_fast() -> None:
    code = "import sys, bdclean; bdclean.cleanse; print(*sys.modules)"
    assert "torch" not in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"accelerator": "foo"}, "accelerator='foo'"),
        ({"precision": "foo"}, "precision foo: "),
        ({"max_epoch": 1}, "max_epoch 1: "),
        ({"max_epochs": "a"}, "epochs 'a': must be a whole number"),
        ({"max_epochs": 1, "epochs": 1}, "epochs 1: means the same as max_epochs"),
        ({"seed": "a"}, "seed 'a': must be a whole number"),
        ({"method": None}, "method None: must be a name"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(bdclean.InputError, match=reason):
        bdclean.cleanse(Pooled(), torch.rand(20, 3, 16, 16), **{"enable_progress_bar": False} | options)


@pytest.mark.parametrize(
    ("images", "reason"),
    [(None, "images None: must be"), (3, "images 3"), (torch.full((9, 3, 8, 8), torch.nan), "nan")],
)
def test_arguments_that_are_not_images_are_named(images: Any, reason: str) -> None:
    with pytest.raises(bdclean.InputError, match=reason):
        bdclean.cleanse(Pooled(), images, enable_progress_bar=False)


def test_a_network_in_memory_is_scanned(model: nn.Module) -> None:
    images = torch.rand(40, 3, 32, 32)
    found = bdclean.scan(model, images, alpha=1.0, **QUIET)
    assert found.verdict.backdoor
    assert len(found.verdict.findings) == len(scanning.DETECTORS)
    assert not list(Path.cwd().iterdir())
    assert model.training
    with pytest.raises(bdclean.InputError, match="^alpha 2: must be at least 0 and at most 1"):
        bdclean.scan(model, images, alpha=2, **QUIET)


@pytest.mark.usefixtures("tiny_shapes")
def test_a_suspect_is_loaded_from_a_file(tiny_suspect: Path) -> None:
    model, data = bdclean.load(str(tiny_suspect), num_held_out=50)
    assert model.num_classes == data.num_classes == 10
    assert (type(data.attack).__name__, data.hparams["num_held_out"]) == ("BadNets", 50)
    with pytest.raises(bdclean.InputError, match="^path nowhere.ckpt: no such file"):
        bdclean.load("nowhere.ckpt")
