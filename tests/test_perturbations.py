"""Universal perturbations, and distillation with them, on tiny tensors and networks with known weaknesses."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import Tensor, nn

from bdclean import InputError
from bdclean.cleansing import ScanDistill
from bdclean.cleansing.scandistill.aims import AllToOne, all_to_one
from bdclean.data.batch import Batch
from bdclean.modules import Suspect
from bdclean.perturbations import add, ascend, boxes, overlay, warp
from bdclean.scanning import (
    DenseInversion,
    Detector,
    Finding,
    PatchInversion,
    SparseInversion,
    WarpInversion,
)
from bdclean.scanning.base import Network
from bdclean.scanning.goals import FlipToClass
from tests.conftest import QUICK, cleanse


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_zero_warp_changes_nothing(images: Tensor) -> None:
    assert torch.allclose(warp(images, torch.zeros(1, 2, 4, 4)), images, atol=1e-5)


def test_a_constant_warp_shifts_all_pixels(images: Tensor) -> None:
    # With corners on the corners, the side is 15 pixels from the first to the last.
    right = torch.zeros(1, 2, 4, 4)
    right[:, 0] = 3 / 15
    assert torch.allclose(warp(images, right)[..., :-3], images[..., 3:], atol=1e-4)
    down = torch.zeros(5, 2, 4, 4)
    down[:, 1] = 2 / 15
    assert torch.allclose(warp(images, down)[:, :, :-2], images[:, :, 2:], atol=1e-4)


def test_each_image_can_have_a_different_perturbation(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    for change, shape in ((add, (3, 16, 16)), (warp, (2, 4, 4)), (overlay, (4, 16, 16))):
        parameters = 0.1 * torch.randn(5, *shape, generator=generator)
        together = change(images, parameters)
        for number in range(5):
            here = slice(number, number + 1)
            assert torch.allclose(together[here], change(images[here], parameters[here]), atol=1e-5)


def test_an_overlay_is_the_masked_image_plus_the_pattern(images: Tensor) -> None:
    layer = torch.rand(1, 4, 16, 16)
    changed = overlay(images, layer)
    for n, c, y, x in ((0, 0, 0, 0), (3, 2, 7, 11)):
        expected = images[n, c, y, x] * (1 - layer[0, 0, y, x]) + layer[0, 1 + c, y, x]
        assert changed[n, c, y, x] == pytest.approx(float(expected))


def test_boxes_are_clipped_at_the_image_border() -> None:
    corners, sides = torch.tensor([[1.0, 2.0], [-2.0, 6.0]]), torch.tensor([2.0, 3.0])
    colours = torch.tensor([[1.0, 0.0], [0.5, 0.25]])
    layers = boxes(corners, sides, colours, torch.Size((6, 7)))
    assert layers.shape == (2, 3, 6, 7)
    for number, y, x in itertools.product(range(2), range(6), range(7)):
        top, left, side = int(corners[number, 0]), int(corners[number, 1]), int(sides[number])
        inside = top <= y < top + side and left <= x < left + side
        expected = [1.0, *colours[number].tolist()] if inside else [0.0] * 3
        assert layers[number, :, y, x].tolist() == expected


def test_the_ascent_of_a_linear_objective_ends_on_the_sphere() -> None:
    slopes = torch.tensor([[3.0, 4.0], [-1.0, 0.0]])
    found = ascend(lambda parameters: (parameters * slopes).sum(), torch.zeros(2, 2), 0.5, 4)
    # Two searches at once, each in its ball.
    assert torch.allclose(found, torch.tensor([[0.3, 0.4], [-0.5, 0.0]]), atol=1e-6)
    assert not found.requires_grad


class Weak(nn.Module):
    """Predicts by the mean brightness, unless the upper left corner is white: then class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))
        corner = images[:, :, :3, :3].amin((1, 2, 3))
        answers = torch.stack([10 * (0.5 - bright), 10 * (bright - 0.5), 100 * (corner - 0.9)], 1)
        return self.scale * answers + self.bias


@pytest.fixture
def images_of_all_classes() -> Tensor:
    return 0.8 * torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cleanser() -> ScanDistill:
    suspect = Suspect("resnet20", None, 3, 32, None, "none", "none")
    suspect.network = Weak()
    suspect.network.layer = nn.Linear(1, 1)
    return ScanDistill(suspect)


def trainer(precision: Precision | None = None, **more: Any) -> Any:
    """The attributes of a Trainer that a cleanser uses."""
    alone = SimpleNamespace(broadcast=lambda value: value)
    return SimpleNamespace(strategy=alone, precision_plugin=precision or Precision(), **more)


def certain(p: float) -> type[Detector]:
    """A detector that finds the last class in every network, with a given p-value."""

    class Certain(Detector):
        def score(self, network: Network, images: Tensor, num_classes: int) -> tuple[Tensor, None]:
            raise NotImplementedError

        def find(self, network: Network, images: Tensor, num_classes: int) -> Finding:
            return Finding("Certain", torch.arange(float(num_classes)), torch.full((num_classes,), p))

    return Certain


def test_searches_stay_finite(images: Tensor) -> None:
    torch.manual_seed(0)

    def network(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] * torch.nan

    start = torch.ones(2, 5)
    assert torch.equal(ascend(lambda x: (x * torch.nan).sum(), start, 10, 3), start)
    assert torch.equal(ascend(lambda x: (x * torch.inf).sum(), start, 10, 3), start)
    own, classes = torch.zeros(len(images), dtype=torch.long), torch.arange(1, 3)
    for inversion in (
        DenseInversion((1.0,), 2),
        SparseInversion((4.0,), 2),
        PatchInversion((4.0,), 2),
        WarpInversion((1.0,), 2),
    ):
        goal = FlipToClass(network, images, own, classes, inversion.batch_size)
        assert all(found.isfinite().all() for found in inversion.shrink(goal))


def test_searches_that_indicate_a_detected_class_are_used() -> None:
    def finding(detector: str, target: int, p: float, recovered: bool = True, score: float = 0.9) -> Finding:
        p_values, scores = torch.ones(4), torch.zeros(4)
        p_values[target], scores[target] = p, score
        return Finding(detector, scores, p_values, nn.Identity() if recovered else None)

    def aims(*findings: Finding) -> list[tuple[str, int]]:
        return [(type(aim.inversion).__name__, aim.target) for aim in all_to_one(findings) if isinstance(aim, AllToOne)]

    sparse = finding("SparseInversion", 2, 0.001)
    assert aims(sparse, finding("DenseInversion", 1, 0.006)) == [("SparseInversion", 2)]
    # Two of them search for the same kind of perturbation.
    assert aims(sparse, finding("PatchInversion", 2, 0.0005)) == [("PatchInversion", 2)]
    assert aims(sparse, finding("PatchInversion", 2, 0.001)) == [("SparseInversion", 2)]
    dense = finding("DenseInversion", 2, 0.002)
    assert aims(dense, sparse) == [("SparseInversion", 2), ("DenseInversion", 2)]
    # A search that is not sure of the class by itself is used, too, if it flips many images.
    assert aims(sparse, finding("DenseInversion", 2, 0.9, score=0.65)) == [
        ("SparseInversion", 2),
        ("DenseInversion", 2),
    ]
    assert aims(sparse, finding("DenseInversion", 2, 0.9, score=0.44)) == [("SparseInversion", 2)]  # common
    assert aims(sparse, finding("WarpInversion", 2, 0.9, score=0.55)) == [("SparseInversion", 2)]  # far fewer
    # If only a detector that does not search is sure, all searches are used.
    known = finding("MaximumMargin", 2, 0.001, recovered=False)
    assert aims(known, sparse) == [("SparseInversion", 2)]
    assert aims(known, finding("WarpInversion", 2, 0.06)) == [
        ("DenseInversion", 2),
        ("SparseInversion", 2),
        ("PatchInversion", 2),
        ("WarpInversion", 2),
    ]
    assert aims(finding("SparseInversion", 2, 0.02)) == []


@pytest.mark.parametrize("options", [{"share": (0.1, 1.1)}, {"unlearning_lr": 0.0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} "):
        ScanDistill(Suspect("resnet20", None, 3, 32, None, "none", "none"), **options)


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("p", [0.001, 0.5])
def test_weights_are_reinitialised_only_if_no_class_is_detected(
    tiny_suspect: Path, p: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bdclean.scanning.DETECTORS", (certain(p),))
    made: list[ScanDistill] = []
    renewed: list[bool] = []
    original = ScanDistill.training_step

    def watched(self: ScanDistill, batch: Tensor, batch_idx: int) -> Tensor:
        made.append(self)
        pairs = zip(self.network.parameters(), self.teacher.parameters(), strict=True)
        renewed.append(any(bool((new != old).any()) for new, old in pairs))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ScanDistill, "training_step", watched)
    cleanse(tiny_suspect, "--method", "ScanDistill", *QUICK)
    cleanser = made[0]
    assert len(cleanser.targeted) == (4 if p < 0.01 else 0)
    assert all(isinstance(aim, AllToOne) and aim.target == 9 for aim in cleanser.targeted)
    assert renewed[0] == (p > 0.01)
    assert re.search(rf"^ *Certain +9 +{p:.2g}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.scans
def test_the_training_length_does_not_depend_on_the_number_of_images(cleanser: ScanDistill) -> None:
    assert [cleanser.epochs_of(images) for images in (20, 450, 2_250, 4_500, 60_000)] == [100, 100, 20, 10, 1]
    cleanser.found = [Finding("MaximumMargin", torch.eye(3)[2], torch.tensor([1.0, 1.0, 0.001]))]
    assert [cleanser.epochs_of(images) for images in (20, 450, 2_250, 4_500, 60_000)] == [100, 70, 14, 7, 1]


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("batch_size", "rate"), [(16, 0.05), (30, 0.1 * (30 / 64) ** 0.5), (512, 0.1 * (54 / 64) ** 0.5)]
)
def test_small_batches_have_lower_rates(
    batch_size: int, rate: float, tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    original = ScanDistill.configure_optimizers

    def watched(self: ScanDistill) -> Any:
        made = original(self)
        rates.append(made["optimizer"].defaults["lr"])
        return made

    monkeypatch.setattr("bdclean.scanning.DETECTORS", ())
    monkeypatch.setattr(ScanDistill, "configure_optimizers", watched)
    cleanse(tiny_suspect, *QUICK, "--data.batch_size", str(batch_size))
    assert rates == [pytest.approx(rate)]


@pytest.mark.parametrize(
    ("epoch", "bias", "anew"),
    [(2, 999, True), (2, 0, False), (3, 999, False), (10, 999, True), (12, 999, False)],
)
def test_a_ruined_student_restarts_once_if_no_class_is_detected(
    cleanser: ScanDistill, images_of_all_classes: Tensor, epoch: int, bias: float, anew: bool
) -> None:
    cleanser.batches = lambda choosing=False: iter([Batch(images_of_all_classes)])  # type: ignore[method-assign]
    network: Any = cleanser.network
    cleanser.prepare()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    cleanser._trainer = trainer(
        max_epochs=20,
        global_step=60 * epoch,
        current_epoch=epoch - 1,
        callback_metrics={},
        optimizers=[optimizer],
        lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)],
    )
    cleanser.on_train_start()
    with torch.no_grad():
        # All images of one class, or as the suspect.
        network.bias[1] = bias
    # Every tenth of the training, in its first half.
    cleanser.on_train_epoch_end()
    assert network.bias[1] == (0 if anew else bias)
    assert scheduler.base_lrs == [0.05 if anew else 0.1]


def test_the_student_is_evaluated_in_the_precision_of_the_training() -> None:
    suspect = Suspect("resnet20", None, 3, 32, None, "none", "none")
    suspect.network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))
    cleanser, images, answered = ScanDistill(suspect), torch.rand(8, 3, 32, 32), []
    linear: Any = cleanser.network[1]  # type: ignore[index]
    linear.register_forward_hook(lambda module, taken, answer: answered.append(answer.dtype))
    cleanser._trainer = trainer(MixedPrecision("bf16-mixed", "cpu"))
    for target in range(3):
        # Weights change in place, so cached casts of the previous ones must be dropped.
        cleanser.network.load_state_dict({"1.weight": torch.zeros(3, 3072), "1.bias": torch.eye(3)[target]})
        assert cleanser.classes(images.split(4)).tolist() == 8 * [target]
    assert answered == 6 * [torch.bfloat16]


def test_for_a_detected_class_the_student_starts_as_the_suspect_without_dropout() -> None:
    suspect = Suspect("resnet20", None, 3, 32, None, "none", "none")
    suspect.network = nn.Sequential(nn.Flatten(), nn.Dropout1d(0.3), nn.Linear(3072, 3))
    cleanser = ScanDistill(suspect, ratios=0.5)
    network: Any = cleanser.network
    before = network[2].weight.detach().clone()
    images = torch.rand(8, 3, 32, 32)
    cleanser.batches = lambda choosing=False: iter([Batch(images)])  # type: ignore[method-assign]
    cleanser.prepare()
    assert (network.training, network[1].training) == (True, False)
    assert torch.equal(network[2].weight, before)
    original = suspect.network.state_dict()["2.weight"]
    assert not torch.equal(before, original)
    cleanser.found = [Finding("MaximumMargin", torch.eye(3)[2], torch.tensor([1.0, 1.0, 0.001]))]
    cleanser.prepare()
    assert torch.equal(network[2].weight, original)
    assert (network.training, network[1].training) == (True, False)
    cleanser._trainer = trainer()
    with cleanser.judged():
        assert not network.training
        assert cleanser.triggers is not None
        cleanser.triggers.search()
    assert (network.training, network[1].training) == (True, False)
    cleanser.finish()
    assert network[1].p == 0.3
    assert not len(cleanser.sample)
