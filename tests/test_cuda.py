"""What GPUs do otherwise: bf16, the search for a device, memory. Left out where there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch

import bdclean
from bdclean.cli.main import main
from tests.conftest import CONFIGS
from tests.strangers import Pooled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cuda", "--trainer.devices", "1"]


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("precision", [[], ["--trainer.precision", "32-true"]])
def test_a_suspect_is_trained_scanned_and_cleansed(precision: list[str]) -> None:
    options = [*QUIET, *precision]
    main(["fit", "--config", str(CONFIGS / "badnet.yaml"), "--trainer.max_epochs", "1", *options])
    suspect = ["--ckpt", "suspect.ckpt", "--data.source", "shapes"]
    main(["scan", *suspect, *options])
    main(["cleanse", *suspect, "--trainer.max_epochs", "3", *options])
    main(["test", "--ckpt", "cleansed.ckpt", "--data.source", "shapes", *options])
    assert Path("scan.json").exists()
    weights = torch.load("cleansed.ckpt", weights_only=True)["state_dict"]
    assert {value.device.type for value in weights.values()} == {"cpu"}
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("attack", ["WaNet", "InputAware", "LIRA"])
def test_attacks_that_act_in_the_training_step(attack: str) -> None:
    options = [*QUIET, "--data.attack", attack, "--trainer.max_epochs", "1"]
    main(["fit", "--data.source", "shapes", "--model.arch", "small_cnn", *options])
    assert Path("suspect.ckpt").exists()


def test_a_network_in_memory_stays_on_its_device() -> None:
    options: dict[str, Any] = {"epochs": 1, "enable_progress_bar": False, "accelerator": "cuda"}
    network = Pooled().cuda()
    cleansed = bdclean.cleanse(network, torch.rand(64, 3, 16, 16), method="Distill", **options)
    assert {one.device.type for one in (*network.parameters(), *cleansed.parameters())} == {"cuda"}
