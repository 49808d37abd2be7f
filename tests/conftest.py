"""Fixtures and helpers of the tests: a tiny embedded set, and suspects made by the command line itself."""

import functools
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is already one test process per core; torch reads this variable on import.
    os.environ["OMP_NUM_THREADS"] = "1"

# A scan takes longer than the rest of a tiny cleansing; tests of scans enable it.
os.environ["BDCLEAN_CLEANSE__SCAN"] = "false"

import numpy as np
import pytest
import torch
from torch import Tensor

from bdclean import attacks
from bdclean.cli.main import main
from bdclean.data.sources import shapes as embedded
from bdclean.networks.cifar import NETWORKS
from bdclean.scanning import DenseInversion, MaximumMargin, PatchInversion, SparseInversion, WarpInversion

CONFIGS = Path(__file__).parent.parent / "configs"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
QUICK = [*QUIET, "--trainer.max_epochs", "1", "--trainer.num_sanity_val_steps", "0"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run each test in an empty folder, with a cache of decoded images that all tests share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded set, with a few hundred images."""
    monkeypatch.setattr(embedded, "IMAGES", {"train": 600, "test": 200})


@pytest.fixture
def narrow_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residual networks with an eighth of their widths, for tests that do not depend on the width."""
    monkeypatch.setattr("bdclean.networks.cifar._WIDE", (8, 16, 32, 64))
    monkeypatch.setitem(NETWORKS, "resnet18", NETWORKS["cifar_resnet18"])
    # Clear the cache with shapes of the wide networks.
    recognise = importlib.import_module("bdclean.networks.recognise")
    monkeypatch.setattr(recognise, "known_shapes", functools.cache(recognise.known_shapes.__wrapped__))


@pytest.fixture(autouse=True)
def _short_scans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of each detector, and few epochs after a scan, except in tests marked `slow` or `scans`."""
    if {"slow", "scans"} & set(request.keywords):
        return
    inversions = (DenseInversion, SparseInversion, PatchInversion, WarpInversion)
    short = [partial(MaximumMargin, 1, 1), *(partial(kind, (1.0,), 1) for kind in inversions)]
    monkeypatch.setattr("bdclean.scanning.DETECTORS", short)
    monkeypatch.setattr("bdclean.scanning.inversion.patch.PATCH_STEPS", 1)
    monkeypatch.setattr("bdclean.scanning.inversion.patch.POSITIONS", 1)
    monkeypatch.setattr("bdclean.cleansing.scandistill.schedule.MAX_EPOCHS", 3)
    monkeypatch.setattr(
        "bdclean.cleansing.scandistill.aims.INVERSIONS", tuple(kind((1.0,), 1, 8) for kind in inversions)
    )
    monkeypatch.setattr("bdclean.cleansing.scandistill.method.COMPARISON_INVERSIONS", (SparseInversion((1.0,), 1, 8),))


@pytest.fixture(scope="session")
def tiny_suspect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suspect that was trained for one epoch on the tiny embedded set."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "IMAGES", {"train": 600, "test": 200})
        patch.chdir(folder)
        main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUICK])
    return folder / "suspect.ckpt"


@pytest.fixture(scope="session")
def suspect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suspect trained as in the README, on the whole embedded set, which takes about a minute."""
    folder = tmp_path_factory.mktemp("suspect")
    before = os.getcwd()
    os.chdir(folder)
    try:
        main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUIET])
    finally:
        os.chdir(before)
    return folder / "suspect.ckpt"


@contextmanager
def computing(seconds: float) -> Iterator[None]:
    """Check that this process and its children use less than `seconds` of CPU time."""
    before = sum(os.times()[:4])
    yield
    assert sum(os.times()[:4]) - before < seconds


def on_shapes(name: str) -> list[str]:
    """Options to train an attack on the embedded images, by the name of its file in `configs/attack`."""
    own = CONFIGS / "attack" / f"{name}_shapes.yaml"
    attack = own if own.exists() else CONFIGS / "attack" / f"{name}.yaml"
    return ["--config", str(CONFIGS / "setup" / "shapes.yaml"), "--config", str(attack)]


def quick_attack(name: str) -> list[str]:
    """Options that make an attack's preparations short."""
    options = inspect.signature(attacks.ATTACKS[name]).parameters
    short = {option: "0.05" for option in options if option.endswith("_epochs")}
    short |= {option: "2" for option in options if option == "steps"}
    return [word for option, value in short.items() for word in (f"--data.attack.{option}", value)]


def cleanse(ckpt: Path, *options: str) -> dict[str, Any]:
    """Cleanse from the command line, into the current folder, and read the report."""
    main(["cleanse", "--ckpt", str(ckpt), *QUIET, *options])
    report: dict[str, Any] = json.loads(Path("cleansed.json").read_text())
    return report


def write_noise(path: str, count: int) -> None:
    """Write random images of 16 pixels and four classes, `count` for training and as many for testing."""
    noise, labels = np.random.default_rng(0), np.arange(count) % 4
    arrays = {f"x_{part}": noise.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8) for part in ("train", "test")}
    np.savez(path, **arrays, y_train=labels, y_test=labels)


def in_a_process(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command apart, for commands that fork: threads of other tests would not survive that."""
    write_noise("../tiny.npz", 400)
    command = [sys.executable, "-m", "bdclean", *words, "--data.source", "../tiny.npz"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def bright_quarters() -> Tensor:
    """160 images of 8 pixels, (160, 3, 8, 8), each bright in one quarter; the last column is dark in all."""
    generator = torch.Generator().manual_seed(0)
    found = 0.3 * torch.rand(160, 3, 8, 8, generator=generator)
    for number in range(160):
        top, left = 4 * (number % 4 // 2), 4 * (number % 2)
        found[number, :, top : top + 4, left : left + 4] += 0.4
    found[..., 7] = 0
    return found
