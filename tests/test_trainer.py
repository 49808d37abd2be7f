"""Precision of training and of figures, and the warm-up of attacks."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.precision import DoublePrecision
from torch import nn

from bdclean import InputError, tasks
from bdclean.attacks import WaNet
from bdclean.cleansing import Distill
from bdclean.data import PoisonDataModule
from bdclean.engine.callbacks import History
from bdclean.engine.precision import computes_in_bf16
from bdclean.engine.trainer import Trainer
from bdclean.modules import AttackModule
from bdclean.scanning import Detector


@pytest.mark.parametrize(
    ("device", "avx512", "amx", "cuda", "expected"),
    [
        ("cpu", True, False, False, True),
        ("cpu", False, True, False, True),
        ("cpu", False, False, False, False),
        ("cpu", False, False, True, False),
        ("cuda:1", False, False, True, True),
        ("cuda:1", True, True, False, False),
        ("mps", True, True, True, False),
    ],
)
def test_bf16_is_for_devices_with_hardware_support(
    device: str, avx512: bool, amx: bool, cuda: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda)
    assert computes_in_bf16(torch.device(device)) is expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "bf16-mixed"),
        ({"devices": 1}, "bf16-mixed"),
        ({"strategy": "auto", "num_nodes": 1}, "bf16-mixed"),
        ({"devices": 2}, "bf16-mixed"),
        ({"devices": 1, "num_nodes": 2, "strategy": "ddp"}, "bf16-mixed"),
        ({"devices": 2, "strategy": "ddp_fork"}, "bf16-mixed"),
        ({"precision": 32}, "32-true"),
        ({"precision": "64-true"}, "64-true"),
        ({"plugins": DoublePrecision()}, "64-true"),
        ({"devices": 2, "precision": "32-true"}, "32-true"),
    ],
)
def test_bf16_is_the_default(options: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options).precision == expected


def test_one_device_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 4))
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert Trainer(**options).world_size == 1
    assert Trainer(devices="auto", **options).world_size == 4


class Kinds(nn.Module):
    """Records the dtypes of its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(images)
        self.seen[self.training].add(answers.dtype)
        return answers


@pytest.mark.usefixtures("tiny_shapes")
def test_training_is_in_bf16_and_figures_are_not() -> None:
    model, data = AttackModule("small_cnn"), PoisonDataModule("shapes", batch_size=64)
    model.network = network = Kinds()
    options = {"precision": "bf16-mixed", "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    tasks.train(Trainer(max_epochs=1, **options), model, data)
    assert Path("suspect.ckpt").exists()
    assert network.seen == {True: {torch.bfloat16}, False: {torch.float32}}
    # Losses are computed in float32.
    with torch.autocast("cpu", torch.bfloat16):
        assert model.train()(torch.rand(2, 3, 32, 32)).dtype == torch.float32


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("source", ["shapes", None])
def test_agreement_is_in_float32(source: str | None) -> None:
    suspect = AttackModule("small_cnn")
    suspect.network = Kinds()
    data = PoisonDataModule(source, unlabeled="procedural", num_unlabeled=40, num_agreement=16, image_size=32)
    cleanser = Distill(suspect)
    student, teacher = cleanser.network, cleanser.teacher
    options = {"precision": "bf16-mixed", "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    figures = tasks.evaluate(Trainer(**options), cleanser, data)
    assert figures.agreement is not None
    assert figures.agreement.percent == 100
    assert isinstance(student, Kinds)
    assert isinstance(teacher, Kinds)
    assert student.seen[False] == teacher.seen[False] == {torch.float32}


class Mixing(Kinds):
    """Mixes the bf16 output of a convolution with a float32 tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.lerp(images, self.convolution(images), 0.5))


@pytest.mark.usefixtures("tiny_shapes")
def test_a_network_without_bf16_support_trains_in_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    suspect = AttackModule("small_cnn")
    suspect.network = Mixing()
    data = PoisonDataModule("shapes", batch_size=64)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)
    tasks.cleanse(trainer, suspect, data, Distill, scan=False)
    assert trainer.precision == "32-true"
    assert "falling back to float32" in caplog.text


class Watching(Detector):
    """Records the dtypes of a network's logits and of its layers' outputs."""

    def score(self, network: nn.Module, images: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, None]:
        seen = next(module.seen for module in network.modules() if isinstance(module, Kinds))[False]
        seen.clear()
        self.kinds = (network(images).dtype, seen)
        return torch.zeros(num_classes), None


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("network", "precision", "expected"),
    [
        (Kinds, "bf16-mixed", torch.bfloat16),
        (Kinds, "32-true", torch.float32),
        (Kinds, None, torch.bfloat16),
        (Mixing, None, torch.float32),
    ],
)
def test_a_scan_uses_the_precision_of_training(
    network: type[Kinds], precision: Any, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    suspect, detector = AttackModule("small_cnn"), Watching()
    suspect.network = network()
    trainer = Trainer(precision=precision, accelerator="cpu", logger=False, enable_progress_bar=False)
    tasks.scan(trainer, suspect, PoisonDataModule("shapes"), detector)
    assert detector.kinds == (torch.float32, {expected})


class Breaks(pl.Callback):
    """Interrupts the training in its second step."""

    def on_train_batch_start(self, *given: Any) -> None:
        if given[-1] == 1:
            raise ZeroDivisionError


@pytest.mark.usefixtures("tiny_shapes")
def test_the_loss_is_logged_after_an_interrupted_training() -> None:
    model, data = AttackModule("small_cnn"), PoisonDataModule("shapes", batch_size=64)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 1}
    with pytest.raises(ZeroDivisionError):
        tasks.train(Trainer(callbacks=[Breaks()], **options), model, data)
    history = History()
    tasks.train(Trainer(callbacks=[history], **options), model, data)
    assert len(history.curves["train/loss"]) == 1


def test_cuda_is_not_initialised_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(devices=2, strategy="ddp_fork", accelerator="cpu", logger=False)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda:0"))
    with pytest.raises(InputError, match="use ddp"):
        tasks.cleanse(trainer, AttackModule("small_cnn"), PoisonDataModule("shapes"), Distill)


@pytest.mark.usefixtures("tiny_shapes")
def test_an_attack_has_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, heard = AttackModule("small_cnn"), []
    monkeypatch.setattr(WaNet, "warmup_fraction", 0.5)
    monkeypatch.setattr(WaNet, "penalty", lambda *_: heard.append(model.trainer.global_step) or 0.0)
    data = PoisonDataModule("shapes", WaNet(), batch_size=64)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "limit_val_batches": 0}
    tasks.train(Trainer(max_epochs=2, **options), model, data)
    steps = int(model.trainer.global_step)
    assert heard == list(range(steps // 2, steps))
