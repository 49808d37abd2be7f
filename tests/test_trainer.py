"""In which precision is trained and in which measured, and when attacks are heard."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bdclean.attacks import WaNet
from bdclean.data import PoisonDataModule
from bdclean.modules import AttackModule
from bdclean.trainer import Trainer, best_precision


@pytest.mark.parametrize(
    ("accelerator", "avx512", "amx", "cuda", "mps", "expected"),
    [
        ("cpu", True, False, False, False, "bf16-mixed"),
        ("cpu", False, True, False, False, "bf16-mixed"),
        ("cpu", False, False, False, False, "32-true"),
        ("cpu", False, False, True, False, "32-true"),
        ("auto", False, False, True, False, "bf16-mixed"),
        ("gpu", False, False, True, False, "bf16-mixed"),
        ("auto", True, False, False, False, "bf16-mixed"),
        ("auto", True, False, False, True, "32-true"),
        ("mps", True, False, False, True, "32-true"),
    ],
)
def test_half_precision_is_what_devices_with_units_for_it_train_in(
    accelerator: str,
    avx512: bool,
    amx: bool,
    cuda: bool,
    mps: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_precision(accelerator) == expected


def test_what_is_asked_for_is_what_is_done() -> None:
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert Trainer(**options).precision == best_precision("cpu")
    assert Trainer(devices=2, **options).precision == "32-true"
    assert Trainer(devices=1, num_nodes=2, **options).precision == "32-true"
    assert Trainer(precision=32, **options).precision == "32-true"
    assert Trainer(precision="bf16-mixed", **options).precision == "bf16-mixed"


class Kinds(nn.Module):
    """Notes in which precision its answers are."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(images)
        self.seen[self.training].add(answers.dtype)
        return answers


@pytest.mark.usefixtures("tiny_shapes")
def test_training_is_in_half_precision_and_figures_are_not() -> None:
    model, data = AttackModule("small_cnn"), PoisonDataModule("shapes", batch_size=64)
    model.network = network = Kinds()
    options = {"precision": "bf16-mixed", "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    Trainer(max_epochs=1, **options).fit(model, data)
    assert Path("suspect.ckpt").exists()
    assert network.seen == {True: {torch.bfloat16}, False: {torch.float32}}
    # What losses are made of is in single precision.
    with torch.autocast("cpu", torch.bfloat16):
        assert model.train()(torch.rand(2, 3, 32, 32)).dtype == torch.float32


@pytest.mark.usefixtures("tiny_shapes")
def test_an_attack_is_silent_for_a_share_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model, heard = AttackModule("small_cnn"), []
    monkeypatch.setattr(WaNet, "silent_share", 0.5)
    monkeypatch.setattr(WaNet, "penalty", lambda *_: heard.append(model.trainer.global_step) or 0.0)
    data = PoisonDataModule("shapes", WaNet(), batch_size=64)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "limit_val_batches": 0}
    Trainer(max_epochs=2, **options).fit(model, data)
    steps = int(model.trainer.global_step)
    assert heard == list(range(steps // 2, steps))
