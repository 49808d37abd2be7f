"""The README's Python, run as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bdclean import tasks
from bdclean.engine.trainer import Trainer
from bdclean.models import build_network
from tests.conftest import CONFIGS

README = (CONFIGS.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
IMPORTS = """
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from typing import Any
from bdclean.attacks import Attack
from bdclean.cleansing import Cleanser
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from bdclean.training import cosine
"""


def run(words: str) -> dict[str, Any]:
    block = next(block for block in BLOCKS if words in block)
    names: dict[str, Any] = {}
    exec(IMPORTS + block, names)
    return names


@pytest.mark.usefixtures("tiny_shapes")
def test_from_python_then_a_method_of_ones_own() -> None:
    names = run("Trainer(max_epochs=3)")
    assert Path("third_class.ckpt").exists()
    assert names["result"].cleansed.agreement.percent is not None
    assert Path("third_class_cleansed.json").exists()
    method = run("class SquaredLogits")["SquaredLogits"]
    trainer = Trainer(max_epochs=1, enable_progress_bar=False)
    _, result = tasks.cleanse(trainer, names["model"], names["data"], method, scan=False)
    assert result.method == "SquaredLogits"


def test_an_attack_of_ones_own() -> None:
    images = torch.rand(5, 3, 8, 8)
    attack = run("class Stripes")["Stripes"](alpha=0.3)
    assert attack.options()["alpha"] == 0.3
    expected = images.clone()
    expected[:, :, :, [0, 2, 4, 6]] *= 0.7
    torch.testing.assert_close(attack.apply(images), expected)


def test_a_model_of_ones_own() -> None:
    model, images = build_network("small_cnn", 10, 32), torch.rand(20, 3, 32, 32)
    names: dict[str, Any] = {"model": model, "images": images}
    exec(next(block for block in BLOCKS if "bdclean.cleanse(" in block), names)
    assert type(names["cleansed"]) is type(model)
