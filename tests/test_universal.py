"""Universal changes, and distillation under them, on tiny tensors and networks whose weakness is known."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bdclean import InputError
from bdclean.cleansing import UniversalDistill
from bdclean.cleansing.universal import aims, confusion
from bdclean.modules import Suspect
from bdclean.scanning import Detector, Finding, SparseInversion
from bdclean.scanning.base import Network
from bdclean.universal import add, ascend, draw_layers, overlay, warp
from tests.conftest import QUICK, cleanse


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_no_warp_changes_nothing(images: Tensor) -> None:
    assert torch.allclose(warp(images, torch.zeros(1, 2, 4, 4)), images, atol=1e-5)


def test_a_constant_warp_looks_as_many_pixels_aside(images: Tensor) -> None:
    # With corners on the corners, the side is 15 pixels from the first to the last.
    right = torch.zeros(1, 2, 4, 4)
    right[:, 0] = 3 / 15
    assert torch.allclose(warp(images, right)[..., :-3], images[..., 3:], atol=1e-4)
    down = torch.zeros(5, 2, 4, 4)
    down[:, 1] = 2 / 15
    assert torch.allclose(warp(images, down)[:, :, :-2], images[:, :, 2:], atol=1e-4)


def test_each_image_can_have_a_change_of_its_own(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    for change, shape in ((add, (3, 16, 16)), (warp, (2, 4, 4)), (overlay, (4, 16, 16))):
        parameters = 0.1 * torch.randn(5, *shape, generator=generator)
        together = change(images, parameters)
        for number in range(5):
            here = slice(number, number + 1)
            assert torch.allclose(together[here], change(images[here], parameters[here]), atol=1e-5)


def test_an_overlay_is_what_is_left_of_the_image_and_the_pattern(images: Tensor) -> None:
    layer = torch.rand(1, 4, 16, 16)
    changed = overlay(images, layer)
    for n, c, y, x in ((0, 0, 0, 0), (3, 2, 7, 11)):
        expected = images[n, c, y, x] * (1 - layer[0, 0, y, x]) + layer[0, 1 + c, y, x]
        assert changed[n, c, y, x] == pytest.approx(float(expected))


def test_the_ascent_of_a_linear_objective_ends_where_the_ball_does() -> None:
    slopes = torch.tensor([[3.0, 4.0], [-1.0, 0.0]])
    found = ascend(lambda parameters: (parameters * slopes).sum(), torch.zeros(2, 2), 0.5, 4)
    # Two searches at once, each in a ball of its own.
    assert torch.allclose(found, torch.tensor([[0.3, 0.4], [-0.5, 0.0]]), atol=1e-6)
    assert not found.requires_grad


def test_random_layers_leave_images_what_they_are() -> None:
    torch.manual_seed(0)
    layers = draw_layers(90, 32)
    assert layers.shape == (90, 4, 32, 32)
    masks, patterns = layers[:, :1], layers[:, 1:]
    assert 0 <= masks.min() <= masks.max() <= 1
    patches, waves, blends = layers.split(30)
    areas = patches[:, 0].sum((1, 2))
    assert set(patches[:, 0].unique().tolist()) == {0.0, 1.0}
    assert 4 <= areas.min() < areas.max() <= 49
    assert not patches[:, 1:][(patches[:, :1] == 0).expand(-1, 3, -1, -1)].any()
    assert not waves[:, :1].any()
    assert 0.03 < waves[:, 1:].abs().max() <= 30 / 255
    assert 0.05 <= blends[:, 0].min() <= blends[:, 0].max() <= 0.2
    assert (patterns[60:] <= masks[60:] + 1e-6).all()
    # Every one is another, and the same seed draws the same.
    assert len(torch.unique(layers.flatten(1), dim=0)) == 90
    torch.manual_seed(0)
    assert torch.equal(draw_layers(90, 32), layers)
    assert draw_layers(6, 100).shape == (6, 4, 100, 100)


class Weak(nn.Module):
    """Answers by the mean brightness, unless the upper left corner is white: then class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))
        corner = images[:, :, :3, :3].amin((1, 2, 3))
        return self.scale * torch.stack([10 * (0.5 - bright), 10 * (bright - 0.5), 100 * (corner - 0.9)], 1)


@pytest.fixture
def images_of_all_classes() -> Tensor:
    return 0.8 * torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cleanser() -> UniversalDistill:
    suspect = Suspect("resnet20", None, 3, 32, None, "none", "none")
    suspect.network = Weak()
    suspect.network.layer = nn.Linear(1, 1)
    return UniversalDistill(suspect)


def test_the_layer_that_moves_the_most_images_to_one_class_is_kept(
    cleanser: UniversalDistill, images_of_all_classes: Tensor
) -> None:
    torch.manual_seed(0)
    layers = draw_layers(30, 32)
    layers[:, :, :3, :3] = 0
    layers[17] = 0
    layers[17, :, :3, :3] = 1
    cleanser.kept = 1
    own = cleanser(images_of_all_classes).argmax(1)
    assert torch.equal(cleanser.best_layers(cleanser, layers, images_of_all_classes, own), layers[17:18])


def test_what_confuses_is_found(images_of_all_classes: Tensor) -> None:
    network = Weak()
    own = network(images_of_all_classes).argmax(1)
    found = ascend(confusion(network, add, images_of_all_classes, own), torch.zeros(1, 3, 32, 32), 8.0, 6)
    assert found.norm() == pytest.approx(8.0, abs=1e-3)
    assert (network(add(images_of_all_classes, found)).argmax(1) != own).float().mean() > 0.9


def test_a_class_is_aimed_at_by_who_found_it() -> None:
    def finding(detector: str, target: int, p: float, recovered: bool = True) -> Finding:
        p_values = torch.ones(4)
        p_values[target] = p
        scores = 1 - p_values
        return Finding(detector, scores, p_values, nn.Identity() if recovered else None)

    sparse = finding("SparseInversion", 2, 0.001)
    (aim,) = aims([sparse, finding("DenseInversion", 1, 0.006)])
    assert (type(aim[0]), aim[1]) == (SparseInversion, 2)
    # Who knows the class alone has it looked for by all; nobody does it twice.
    known = finding("MaximumMargin", 2, 0.001, recovered=False)
    assert {(type(hunter).__name__, target) for hunter, target in aims([known, sparse])} == {
        ("DenseInversion", 2),
        ("SparseInversion", 2),
        ("WarpInversion", 2),
    }
    assert len(aims([known, sparse])) == 3
    assert aims([finding("SparseInversion", 2, 0.02)]) == []


def test_the_first_images_of_a_batch_are_changed_and_stay_where_they_are(cleanser: UniversalDistill) -> None:
    cleanser.share = 0.375
    cleanser.changes = [(add, torch.full((1, 3, 32, 32), 1.0)), (add, torch.full((2, 3, 32, 32), 2.0))]
    batch = torch.rand(16, 3, 32, 32)
    shifts = (cleanser.changed(batch) - batch).mean((1, 2, 3))
    assert torch.allclose(shifts, torch.tensor([1.0] * 3 + [2.0] * 3 + [0.0] * 10), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"share": 1.1}, {"blind_lr": 0.0}, {"shift": (1.0, -1.0)}, {"steps": 0}, {"kept": 200}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--method.{next(iter(options))} "):
        UniversalDistill(Suspect("resnet20", None, 3, 32, None, "none", "none"), **options)


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("p", [0.001, 0.5])
def test_weights_are_new_only_where_no_class_stands_out(
    tiny_suspect: Path, p: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Certain(Detector):
        def score(self, network: Network, images: Tensor, num_classes: int) -> tuple[Tensor, None]:
            raise NotImplementedError

        def find(self, network: Network, images: Tensor, num_classes: int) -> Finding:
            return Finding("Certain", torch.arange(float(num_classes)), torch.full((num_classes,), p))

    monkeypatch.setattr("bdclean.cleansing.universal.DETECTORS", (Certain,))
    made: list[UniversalDistill] = []
    renewed: list[bool] = []
    original = UniversalDistill.on_train_epoch_start

    def watched(self: UniversalDistill) -> None:
        made.append(self)
        pairs = zip(self.network.parameters(), self.teacher.parameters(), strict=True)
        renewed.append(any(bool((new != old).any()) for new, old in pairs))
        original(self)

    monkeypatch.setattr(UniversalDistill, "on_train_epoch_start", watched)
    cleanse(tiny_suspect, "--method", "UniversalDistill", *QUICK, "--method.layers", "6")
    (cleanser,) = made
    assert len(cleanser.aims) == (3 if p < 0.01 else 0)
    assert all(target == 9 for _, target in cleanser.aims)
    assert renewed == [p > 0.01]
    assert f"| Certain | 9 | {p:.2g} |" in capsys.readouterr().out
