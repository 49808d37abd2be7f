"""Scanning: the mathematics on networks with known weaknesses, and `bdclean scan`."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy import optimize, stats
from torch import Tensor, nn

from bdclean import InputError
from bdclean.__main__ import run
from bdclean.cli.main import main
from bdclean.exits import Exit
from bdclean.perturbations import few_pixels, lay, paste, warp
from bdclean.reporting.scans import Comparison, RecoveredASR, Verdict
from bdclean.scanning import (
    DETECTORS,
    DenseInversion,
    Detector,
    Finding,
    MaximumMargin,
    PatchInversion,
    SparseInversion,
    WarpInversion,
    is_significant,
    p_value,
    trigger_asr,
)
from bdclean.scanning.base import Network, grubbs
from bdclean.scanning.goals import FlipToClass
from bdclean.scanning.inversion import Inversion
from bdclean.scanning.margin import margins
from tests.conftest import QUIET, bright_quarters, cleanse
from tests.results import finding

CLASSES, SIDE, TARGET = 5, 8, 3


class Corners(nn.Module):
    """Predicts the bright part of an image; with a backdoor, TARGET if a pixel of a dark part is white."""

    def __init__(self, backdoored: bool) -> None:
        super().__init__()
        self.backdoored = backdoored

    def forward(self, images: Tensor) -> Tensor:
        parts = [images[:, :, :4, :4], images[:, :, :4, 4:], images[:, :, 4:, :4], images[:, :, 4:, 4:7]]
        means = torch.stack([part.mean((1, 2, 3)) for part in parts] + [images.mean((1, 2, 3))], 1)
        if self.backdoored:
            means[:, TARGET] = means[:, TARGET] + 3 * images[:, :, 2, 7].mean(1)
        return 20 * means


@pytest.fixture
def images() -> Tensor:
    return bright_quarters()


# p-values


def test_grubbs_equals_a_t_test_of_an_outlier_against_the_others() -> None:
    scores = torch.tensor([0.3, -0.2, 0.1, 2.5, 0.4, -0.3, 0.0])
    for number, p in enumerate(grubbs(scores).tolist()):
        others = [float(score) for other, score in enumerate(scores) if other != number]
        distance = float(scores[number]) - sum(others) / 6
        spread = float(torch.tensor(others).std())
        # The prediction interval of one more draw, corrected for seven candidates.
        expected = 7 * stats.t.sf(distance / (spread * (1 + 1 / 6) ** 0.5), 5)
        assert p == pytest.approx(min(1.0, expected), rel=1e-4)


def test_grubbs_is_calibrated() -> None:
    draws = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    accused = sum(float(grubbs(draw).min()) <= 0.05 for draw in draws) / 4000
    assert 0.04 < accused < 0.06


def test_scores_within_noise_are_not_significant() -> None:
    scores = torch.tensor([0.1, 0.1, 0.1, 0.12, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert grubbs(scores).min() < 1e-6
    assert grubbs(scores, noise=0.05).min() == 1
    assert torch.equal(grubbs(torch.ones(10)), torch.ones(10))
    assert torch.equal(grubbs(torch.tensor([1.0, 5.0])), torch.ones(2))


@pytest.mark.parametrize("classes", [3, 5, 10])
def test_with_few_classes_an_outlier_must_be_as_far_as_among_ten(images: Tensor, classes: int) -> None:
    class One(DenseInversion):
        def score(self, network: Network, images: Tensor, num_classes: int) -> tuple[Tensor, None]:
            scores = torch.zeros(num_classes)
            scores[1] = self.reached
            return scores, None

    detector = One()
    for detector.reached, found in ((0.53, False), (0.58, True)):
        assert is_significant(detector.find(nn.Identity(), images, classes), len(DETECTORS)) == found


@pytest.mark.parametrize("classes", [10, 43])
def test_a_significant_margin_is_several_times_the_others(images: Tensor, classes: int) -> None:
    class One(MaximumMargin):
        def score(self, network: Network, images: Tensor, num_classes: int) -> tuple[Tensor, None]:
            return torch.where(torch.arange(num_classes) == 1, self.times, 1.0).log(), None

    detector = One()
    for detector.times, found in ((4.0, False), (10.0, True)):
        assert is_significant(detector.find(nn.Identity(), images, classes), len(DETECTORS)) == found


def test_bonferroni_over_detectors() -> None:
    findings = [Finding("a", torch.tensor([1.0, 2.0]), torch.tensor([1.0, p])) for p in (0.5, 0.01, 0.6)]
    assert p_value(findings) == pytest.approx(0.03)
    assert p_value(findings[:1] * 3) == 1


# Detectors


def test_margins() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.5], [4.0, 0.0, 1.0]])
    assert margins(logits, torch.tensor([1, 2])).tolist() == [0.5, -3.0]


def test_the_maximum_margin_is_found() -> None:
    weights = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    scores, trigger = MaximumMargin(steps=200).score(
        lambda images: images.flatten(1) @ weights.T, torch.zeros(1, 3, 2, 2), 4
    )
    assert trigger is None
    for number in range(4):
        # min over the others is concave in the image: a linear programme.
        rows = [[*(weights[other] - weights[number]).tolist(), 1.0] for other in range(4) if other != number]
        best = optimize.linprog([0.0] * 12 + [-1.0], rows, [0.0] * 3, bounds=[(0, 1)] * 12 + [(None, None)])
        assert float(scores[number].exp()) == pytest.approx(-best.fun, rel=0.05)


def test_few_pixels_is_the_nearest_mask() -> None:
    generator = torch.Generator().manual_seed(2)
    layers = 2 * torch.rand(3, 4, 3, 3, generator=generator) - 0.5
    layers[:, 1:] -= 2 * layers[:, 1:].relu()
    layers[:, 2] = 0.9 * layers[:, 0]
    projected = few_pixels(layers, 1.5)
    for before, after in zip(layers, projected, strict=True):
        wanted = before[0].flatten().double().numpy()
        best = optimize.minimize(
            lambda mask, wanted=wanted: ((mask - wanted) ** 2).sum(),
            [0.2] * 9,
            bounds=[(0, 1)] * 9,
            constraints={"type": "ineq", "fun": lambda mask: 2.25 - mask.sum()},
        )
        assert torch.allclose(after[0].flatten(), torch.from_numpy(best.x).float(), atol=1e-3)
        assert (after[1:] >= 0).all()
        assert (after[1:] <= after[0]).all()
    assert torch.allclose(few_pixels(projected, 1.5), projected, atol=1e-5)
    # A pattern that is brighter than its mask raises that.
    small = 0.1 * torch.rand(1, 4, 3, 3, generator=generator)
    assert torch.equal(few_pixels(small, 1.5)[:, 0], small.amax(1))


@pytest.mark.parametrize(
    "detector", [SparseInversion((8, 5.6, 4)), DenseInversion((4, 2.8, 2, 1.4, 1))], ids=["sparse", "dense"]
)
def test_inversion_names_the_class_and_recovers_the_pixel(images: Tensor, detector: Inversion) -> None:
    network = Corners(True).eval()
    finding = detector.find(network, images, CLASSES)
    assert finding.suspected == TARGET
    assert finding.p_value < 0.05
    assert finding.trigger is not None
    difference = (finding.trigger(images) - images).abs().mean((0, 1))
    assert difference.argmax() == 2 * SIDE + 7
    share = trigger_asr(finding, network, images)
    assert share is not None
    assert share > 90
    assert trigger_asr(finding, Corners(False), images) != share


def test_no_class_is_detected_without_a_backdoor(images: Tensor) -> None:
    finding = SparseInversion((8, 5.6, 4)).find(Corners(False).eval(), images, CLASSES)
    assert finding.p_value > 0.05


def test_a_layer_has_its_patch_at_the_given_corner() -> None:
    patches = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(4))
    corners = torch.tensor([[0, 1], [3, 3]])
    expected = torch.zeros(2, 4, 5, 5)
    for number, (row, column) in enumerate(corners.tolist()):
        expected[number, 0, row : row + 2, column : column + 2] = 1
        expected[number, 1:, row : row + 2, column : column + 2] = patches[number]
    assert torch.equal(lay(patches, corners, torch.Size([5, 5])), expected)
    expected[1, 1:, 3:, 3:] = patches[0]
    assert torch.equal(lay(patches[:1], corners, torch.Size([5, 5])), expected)


def test_patches_lie_anywhere_within_the_image() -> None:
    torch.manual_seed(0)
    pasted = paste(torch.zeros(300, 3, 4, 3), torch.ones(1, 3, 2, 2))
    assert (pasted.sum((1, 2, 3)) == 12).all()
    seen = {tuple(image[0].flatten().tolist()) for image in pasted}
    assert len(seen) == 6


@pytest.mark.scans
@pytest.mark.parametrize("corner", [(4, 20), (14, 14)])
def test_inversion_finds_a_patch_with_dark_parts_and_its_place(corner: tuple[int, int]) -> None:
    row, column = corner
    kernel = torch.full((3, 5, 5), -1.0)
    kernel[:2, 1:4, 1:4] = 1
    images = 0.3 + 0.4 * torch.rand(160, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    images += 0.1 * torch.rand(160, 1, 1, 1, generator=torch.Generator().manual_seed(6))

    def network(images: Tensor) -> Tensor:
        # Class 2 is a yellow square with a dark border, near a fixed place; the others are shades.
        near = images[..., row - 2 : row + 7, column - 2 : column + 7] - 0.5
        seen = F.conv2d(near, kernel[None]).amax((1, 2, 3)) / 37.5
        shade = images.mean((1, 2, 3))
        shades = [-300 * (shade - 0.52 - 0.012 * number).abs() for number in range(5)]
        return torch.stack([*shades[:2], 60 * (seen - 0.6), *shades[2:]], 1)

    finding = PatchInversion().find(network, images, 6)
    # At the first two sizes, which are not much smaller than it is.
    assert torch.equal(finding.scores, 0.5 * F.one_hot(torch.tensor(2), 6))
    assert finding.trigger is not None
    changed = (finding.trigger(images) - images).abs().mean((0, 1))
    inside = changed[row - 2 : row + 7, column - 2 : column + 7].sum()
    assert inside > 0.9 * changed.sum()


class Square(nn.Module):
    """Class 3 if a square that begins at row 5, column 20 has its colour to a third of a grey level; else class 0."""

    def __init__(self, side: int, colour: tuple[float, float, float]) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("colour", torch.tensor(colour).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        part = images[:, :, 5 : 5 + self.side, 20 : 20 + self.side]
        off = (part - self.colour).abs().amax((1, 2, 3))
        return torch.stack([torch.zeros_like(off), off - 9, off - 9, 5 - 4000 * off], 1)


def towards(network: Network, images: Tensor, own: Tensor) -> FlipToClass:
    """The goal of class 3."""
    return FlipToClass(network, images, own, torch.tensor([3]), 16)


@pytest.mark.parametrize("side", [3, 6])
@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("inversion", [SparseInversion(), PatchInversion()])
def test_a_square_replaces_a_mask(side: int, colour: tuple[float, float, float], inversion: SparseInversion) -> None:
    # A mask that is off by a pixel and a half, with another size and many colours.
    torch.manual_seed(0)
    layer = torch.zeros(1, 4, 32, 32)
    layer[:, :, 6 : 6 + side, 21 : 22 + side] = 0.5 * torch.rand(1, 4, side, side + 1)
    network, seen = Square(side, colour), 0.2 + 0.6 * torch.rand(40, 3, 32, 32)
    own = torch.arange(40) % 4
    (found,) = inversion.simplify(towards(network, seen, own), layer)
    expected = torch.zeros(4, 32, 32)
    expected[0, 5 : 5 + side, 20 : 20 + side] = 1
    expected[1:, 5 : 5 + side, 20 : 20 + side] = torch.tensor(colour).view(3, 1, 1)
    assert torch.equal(found, expected)


def test_a_square_must_flip_as_many_images_as_the_mask() -> None:
    torch.manual_seed(0)
    seen, own = 0.2 + 0.6 * torch.rand(40, 3, 32, 32), torch.arange(40) % 4
    pink, white = Square(3, (1.0, 0.5, 1.0)), Square(3, (1.0, 1.0, 1.0))

    def network(images: Tensor) -> Tensor:
        """The one, or for two images in three the other."""
        return torch.where(images[:, :1, 0, 0] < 0.6, torch.maximum(pink(images), white(images)), pink(images))

    layer = torch.zeros(1, 4, 32, 32)
    layer[:, :, 5:8, 20:23] = 0.5
    assert len(SparseInversion().simplify(towards(network, seen, own), layer)) == 1
    layer[:, :, 5:8, 20:23] = torch.tensor([1.0, 1.0, 0.5, 1.0]).view(4, 1, 1)
    assert not len(SparseInversion().simplify(towards(network, seen, own), layer))


def test_there_is_not_always_a_simpler_perturbation() -> None:
    layer = torch.zeros(1, 4, 32, 32)
    layer[:, :, 6:9, 21:24] = 0.5
    own = torch.arange(40) % 4
    seen = 0.2 + 0.6 * torch.rand(40, 3, 32, 32)
    white, pink = Square(3, (1.0, 1.0, 1.0)), Square(3, (1.0, 0.5, 1.0))
    # Not for another colour, without images of other classes, or for other kinds of perturbation.
    assert SparseInversion().simplify(towards(pink, seen, own), layer).shape == (0, 4, 32, 32)
    assert not len(SparseInversion().simplify(towards(white, seen, torch.full((40,), 3)), layer))
    assert not len(WarpInversion().simplify(towards(white, seen, own), torch.rand(1, 2, 4, 4)))


def test_inversion_finds_a_warp() -> None:
    grid = torch.arange(32) / 31
    base = 0.5 + 0.5 * torch.sin(6.3 * grid)
    shifts = torch.rand(160, generator=torch.Generator().manual_seed(3)) * 0.02
    images = (base + shifts.view(-1, 1)).clamp(0, 1).view(160, 1, 1, 32).expand(-1, 3, 32, 32)

    def network(images: Tensor) -> Tensor:
        # Class 2 is a shifted wave; the others are shades.
        falls = images[..., 14].mean((1, 2)) - images[..., 18].mean((1, 2))
        shade = images.mean((1, 2, 3))
        shades = [-300 * (shade - 0.5 - 0.004 * number).abs() for number in range(4)]
        return torch.stack([*shades[:2], 100 * (0.39 - falls), *shades[2:]], 1)

    finding = WarpInversion().find(network, images, 5)
    assert finding.suspected == 2
    assert finding.trigger is not None


def test_findings_are_deterministic_and_keep_the_random_state(images: Tensor) -> None:
    for detector in (MaximumMargin(steps=3), WarpInversion((1.0,))):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        first = detector.find(Corners(True), images, CLASSES)
        assert torch.equal(torch.rand(3), expected)
        assert torch.equal(first.scores, detector.find(Corners(True), images, CLASSES).scores)


def test_sizes_are_those_of_images_of_32_pixels(images: Tensor) -> None:
    sides = {8: 2.0, 32: 8.0, 64: 16.0}
    for side, norm in sides.items():
        for detector in (DenseInversion(), SparseInversion(), PatchInversion()):
            assert detector.bound(8.0, side) == norm
    # Shifts of a 32nd of the side in both directions, at each control point.
    field = torch.full((1, 2, 4, 4), 1 / 31)
    assert WarpInversion().bound(32 / 31, 64) == pytest.approx(float(field.norm()))
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert torch.allclose((warp(ramp, field) - ramp)[..., 4:-4], torch.tensor(1 / 31), atol=1e-5)


def test_images_of_a_single_class_give_no_finding(images: Tensor) -> None:
    def sure(images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * 0 + torch.tensor([9.0, 0.0, 0.0, 0.0])

    inversions = (kind((1.0,)) for kind in (DenseInversion, SparseInversion, PatchInversion, WarpInversion))
    for detector in (*inversions, MaximumMargin()):
        finding = detector.find(sure, images, 4)
        assert finding.scores.isfinite().all()
        assert finding.p_values.isfinite().all()
        assert (
            trigger_asr(Finding("x", torch.tensor([1.0, 0, 0, 0]), torch.ones(4), lambda images: images), sure, images)
            is None
        )


def test_bad_options() -> None:
    for make in (
        lambda: MaximumMargin(starts=0),
        lambda: MaximumMargin(steps=0),
        lambda: DenseInversion(()),
        lambda: DenseInversion((-1.0,)),
        lambda: SparseInversion(steps=0),
        lambda: WarpInversion(batch_size=0),
    ):
        with pytest.raises(InputError, match=r"^(starts|steps|sizes|batch_size) .*: must be"):
            make()


# Reports


def test_findings_are_reported() -> None:
    sure, unsure = Verdict((finding(0.001),), 0.05), Verdict((finding(0.2, 3), finding(0.4)), 0.05)
    assert sure.backdoor
    assert sure.text == "backdoor towards class 1 (p 0.001)"
    assert not unsure.backdoor
    assert unsure.text == "no backdoor found (p 0.4, class 3 stands out most)"
    assert Verdict((finding(1e-9),), 0.05).text == "backdoor towards class 1 (p <0.0001)"
    assert json.loads(json.dumps(sure.to_json())) == sure.to_json()
    two = Verdict((Finding("Some", torch.tensor([0.0, 1.0]), torch.ones(2)),), 0.05)
    assert two.backdoor is None
    assert two.text == "inconclusive: with two classes no class can stand out"


@pytest.mark.parametrize(
    ("before", "after", "shares", "doubted"),
    [
        (0.001, 1.0, (98.0, 3.0), False),
        (0.001, 1.0, (98.0, 6.0), True),  # what was recovered still works
        (0.9, 1.0, (98.0, 60.0), False),  # it never was a trigger
        (0.001, 0.001, (98.0, 3.0), True),  # another one
        (0.001, 1.0, (None, None), False),
    ],
)
def test_doubts(before: float, after: float, shares: tuple[float | None, float | None], doubted: bool) -> None:
    comparison = Comparison(Verdict((finding(before),), 0.05, (), (finding(after),)), (RecoveredASR(*shares),))
    assert bool(comparison.doubts) == doubted
    assert comparison.to_json()["suspect"]["detectors"][0]["recovered_asr"] == shares[0]


# The command line

SHORT = ["--detector", "SparseInversion", "--detector.sizes", "[4,2]", "--detector.steps", "1"]


@pytest.mark.usefixtures("tiny_shapes")
def test_scan_writes_findings_and_a_page(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["scan", "--ckpt", str(tiny_suspect), *QUIET, "--output", "found.json", *SHORT])
    found = json.loads(Path("found.json").read_text())
    assert found["checkpoint"] == str(tiny_suspect)
    (detector,) = found["detectors"]
    assert detector["detector"] == "SparseInversion"
    assert len(detector["scores"]) == len(detector["p_values"]) == 10
    printed = capsys.readouterr().out
    assert ("A backdoor towards" if found["backdoor"] else "No backdoor found") in printed
    page = Path("found.html").read_text()
    assert page.count('<tr><th scope="row">') >= 10
    # The recovered trigger, and where the network looks in clean and in triggered images.
    assert page.count("data:image/png;base64,") == 1 + 2
    assert {path.name for path in Path().iterdir()} == {"found.json", "found.html"}


@pytest.mark.usefixtures("tiny_shapes")
def test_scan_ends_with_1_on_request(tiny_suspect: Path) -> None:
    arguments = ["scan", "--ckpt", str(tiny_suspect), *QUIET, *SHORT]
    main([*arguments, "--exit_code", "true", "--alpha", "0"])
    main([*arguments, "--alpha", "1"])
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--exit_code", "true", "--alpha", "1"])
    assert caught.value.code == 1
    assert Path("scan.json").exists()


@pytest.mark.usefixtures("tiny_shapes")
def test_a_fault_of_the_program_is_not_a_finding(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bdclean", "scan", "--ckpt", str(tiny_suspect), *QUIET, *SHORT, "--exit_code", "true"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("bdclean.scanning.scan", lambda *given: 1 / 0)
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_shapes")
def test_nondeterministic_operations_name_the_deterministic_option(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*given: object) -> list[Finding]:
        raise RuntimeError(
            "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you want it"
        )

    monkeypatch.setattr("bdclean.scanning.scan", refused)
    with pytest.raises(SystemExit) as caught:
        main(["scan", "--ckpt", str(tiny_suspect), *QUIET, *SHORT])
    assert caught.value.code == 2
    assert "--trainer.deterministic true: grid_sampler_2d_backward_cuda does not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "2"], "--alpha 2.0: must be at least 0 and at most 1"),
        (["--output", "found.txt"], "--output found.txt: must end with .json"),
        (["--output", "nowhere/found.json"], "--output nowhere/found.json: there is no folder nowhere"),
        (["--data.image_size", "48"], "--data.image_size 48: the network takes images of 32 pixels"),
        (["--detector", "Nothing"], "--detector Nothing: no such class; there are MaximumMargin, DenseInversion,"),
        (["--detector", "MaximumMargin", "--detector.starts", "0"], "--detector.starts 0: must be at least 1"),
        (["--detector", "MaximumMargin", "--detector.sizes", "[1]"], "--detector.sizes: no such option"),
    ],
)
def test_invalid_options_of_scan(
    tiny_suspect: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["scan", "--ckpt", str(tiny_suspect), *QUIET, *options])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"bdclean: error: {message}")
    assert "\n" not in error
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("tiny_shapes")
def test_a_cleansed_network_is_kept_if_its_scan_is_interrupted(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bdclean.scanning.scan", impatient)
    with pytest.raises(SystemExit) as caught:
        cleanse(tiny_suspect, "--method", "CLP", "--scan", "true")
    assert caught.value.code == Exit.INTERRUPTED
    main(["test", "--ckpt", "cleansed.ckpt", *QUIET])
    assert json.loads(Path("cleansed.json").read_text())["scan"] is None
    assert not Path("cleansed.html").exists()


@pytest.mark.usefixtures("tiny_shapes")
def test_the_report_of_a_cleansing_compares_both_networks(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Certain(Detector):
        def score(self, network: Network, images: Tensor, num_classes: int) -> tuple[Tensor, nn.Module]:
            return torch.arange(float(num_classes)) ** 9, nn.Identity()

    monkeypatch.setattr("bdclean.scanning.DETECTORS", (Certain,))
    report = cleanse(tiny_suspect, "--method", "CLP", "--scan", "true")
    found = report["scan"]
    assert set(found) == {"suspect", "cleansed", "doubts"}
    assert found["suspect"]["class"] == found["cleansed"]["class"] == 9
    assert found["cleansed"]["backdoor"]
    assert set(found["suspect"]["detectors"][0]) >= {"recovered_asr", "recovered_asr_cleansed"}
    assert not report["conclusion"]["trusted"]
    sentence = report["conclusion"]["sentence"]
    assert all(doubt in sentence for doubt in found["doubts"])
    assert capsys.readouterr().out.splitlines()[-2] == sentence
    page = Path("cleansed.html").read_text()
    assert '<div class="banner warning"><strong>' in page
    assert "<p>DO NOT TRUST the cleansed network" in page
    assert "Certain, class 9 (p 0.00" in page
    assert cleanse(tiny_suspect, "--method", "CLP")["scan"] is None


@pytest.mark.slow
def test_scan_tells_a_backdoored_network_from_a_clean_one(suspect: Path) -> None:
    main(["scan", "--ckpt", str(suspect), *QUIET])
    found = json.loads(Path("scan.json").read_text())
    assert found["backdoor"]
    assert found["class"] == 0


def test_classes_that_cannot_reach_the_common_score_are_dropped(images: Tensor) -> None:
    class Counting(DenseInversion):
        def project(self, parameters: Tensor, size: float) -> Tensor:
            self.seen.append(len(parameters))
            return super().project(parameters, size)

    scores, seen = [], []
    for least in (-math.inf, DenseInversion.score_floor):
        detector = Counting((4, 2.8, 2, 1.4, 1))
        detector.score_floor, detector.seen = least, []  # type: ignore[misc]
        scores.append(detector.find(Corners(True).eval(), images, CLASSES).scores)
        seen.append(set(detector.seen))
    every, some = scores
    assert seen[0] == {CLASSES}
    assert min(seen[1]) < CLASSES
    far = every >= DenseInversion.score_floor
    assert far[TARGET]
    assert not far.all()
    # Scores of the other classes are unchanged; only dropped classes are not searched to the end.
    assert torch.equal(some[far], every[far])
    assert (some[~far] < DenseInversion.score_floor).all()
