"""Triggers of single classes: found by comparison with a network that was re-initialised, and unlearned."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

import bdclean
from bdclean import InputError
from bdclean.checkpoint import read
from bdclean.cleansing import ScanDistill
from bdclean.cleansing.scandistill.aims import BySource, Changes
from bdclean.cleansing.scandistill.judging import Judge
from bdclean.modules import Suspect
from bdclean.perturbations import add
from bdclean.reporting.conclusion import conclude
from bdclean.scanning import DenseInversion, Finding, PatchInversion, SparseInversion
from bdclean.scanning.difference import Difference, differences
from bdclean.scanning.goals import FlipOneNetwork
from bdclean.tables import markdown
from tests.conftest import QUICK, bright_quarters, cleanse
from tests.results import cleansing

SIDE = 8
CLASSES = 4


class Quarters(nn.Module):
    """Predicts which quarter of an image is bright; with a trigger, class 2 becomes class 0 if a dark pixel is white.

    The last column is dark in all images.
    """

    def __init__(self, triggered: bool, slope: float = 20.0) -> None:
        super().__init__()
        self.triggered = triggered
        self.slope = slope

    def forward(self, images: Tensor) -> Tensor:
        parts = [images[:, :, :4, :4], images[:, :, :4, 4:], images[:, :, 4:, :4], images[:, :, 4:, 4:7]]
        means = torch.stack([part.mean((1, 2, 3)) for part in parts], 1)
        if self.triggered:
            white = images[:, :, 2, 7].mean(1)
            moved = 3 * white * (means.argmax(1) == 2)
            means = means + moved[:, None] * torch.tensor([1.0, 0.0, 0.0, 0.0])
        return self.slope * means


@pytest.fixture
def images() -> Tensor:
    return bright_quarters()


def members(number: int) -> Tensor:
    return torch.arange(number, 160, 4)


def test_the_objective_matches_the_formula(images: Tensor) -> None:
    torch.manual_seed(0)
    network, reference = (nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES)) for _ in range(2))
    classes, size = torch.tensor([1, 3]), 5
    goal = FlipOneNetwork(network, reference, images, [members(1), members(3)[:7]], classes, size)
    for start in (0, 5):  # the second batch of class 3 starts again after seven images
        shifts = 0.3 * torch.randn(2, 3, SIDE, SIDE)
        expected = 0.0
        for number, (own, places) in enumerate(((1, members(1)), (3, members(3)[:7]))):
            for step in range(start, start + size):
                changed = (images[places[step % len(places)]] + shifts[number])[None]
                p, q = (one(changed).softmax(1)[0, own].item() for one in (network, reference))
                expected += (math.log(1 - p) + max(math.log(q), -5.0)) / size
        assert goal.gain(add, shifts).item() == pytest.approx(expected, rel=1e-4)
    goal.restart()
    goal.keep(torch.tensor([False, True]))
    assert len(goal) == 1
    shift = torch.zeros(1, 3, SIDE, SIDE)
    alone = FlipOneNetwork(network, reference, images, [members(3)[:7]], torch.tensor([3]), size)
    assert torch.equal(goal.gain(add, shift), alone.gain(add, shift))


def test_a_patch_is_placed_where_it_flips_only_the_network(images: Tensor) -> None:
    goal = FlipOneNetwork(Quarters(True), Quarters(False), images, [members(2)], torch.tensor([2]), 8)
    pixel = torch.zeros(1, 3, SIDE, SIDE)
    pixel[..., 2, 7] = 1
    assert float(goal.quick_gain(add, pixel)) > 0.9
    assert float(goal.quick_gain(add, torch.zeros_like(pixel))) < 0.1
    both = FlipOneNetwork(Quarters(True), Quarters(True), images, [members(2)], torch.tensor([2]), 8)
    assert float(both.quick_gain(add, pixel)) < 0.1


def test_the_source_class_of_a_trigger_is_found_and_none_without_a_trigger(images: Tensor) -> None:
    torch.manual_seed(0)
    inversions = [SparseInversion((8.0, 5.6, 4.0), 4), PatchInversion((5.6, 4.0), 4)]
    with_trigger = differences(Quarters(True), Quarters(False), images, inversions, CLASSES)
    assert any(one.backdoor for one in with_trigger)
    assert all(one.source_classes in ((), (2,)) for one in with_trigger)
    # In the other direction there is nothing to find, because that network has no trigger.
    for one, other in ((False, True), (False, False), (True, True)):
        assert not any(one.backdoor for one in differences(Quarters(one), Quarters(other), images, inversions, CLASSES))


@pytest.mark.parametrize(
    ("forward", "backward", "found"),
    [
        # Measured on a network whose backdoor has one source class: the classes that flip easily do so both ways.
        (
            [0.0, 0.0, 0.02, 0.01, 0.45, 0.03, 0.01, 0.05, 0.0, 0.03],
            [0.01, 0.0, 0.01, 0.01, 0.08, 0.05, 0.16, 0.14, 0.1, 0.12],
            True,
        ),
        # The same share, which the reference has in another class: no class exceeds chance.
        (
            [0.0, 0.0, 0.02, 0.01, 0.45, 0.03, 0.01, 0.05, 0.0, 0.03],
            [0.01, 0.0, 0.01, 0.01, 0.08, 0.05, 0.4, 0.14, 0.1, 0.12],
            False,
        ),
        # Flips both ways.
        (
            [0.1, 0.3, 0.2, 0.3, 0.45, 0.2, 0.1, 0.2, 0.3, 0.1],
            [0.1, 0.2, 0.25, 0.2, 0.3, 0.25, 0.1, 0.15, 0.2, 0.15],
            False,
        ),
        # Two classes are too few for one to stand out.
        ([0.45, 0.0], [0.0, 0.16], False),
    ],
)
def test_a_single_source_class_exceeds_its_own_chance(forward: list[float], backward: list[float], found: bool) -> None:
    inversion = DenseInversion((1.0,), 1)
    one = Difference(inversion, torch.arange(len(forward)), torch.tensor(forward), torch.tensor(backward))
    assert one.backdoor == found
    if found:
        assert one.source_classes == (4,)


def test_classes_with_few_images_are_left_out(images: Tensor) -> None:
    few = images[torch.cat([members(0)[:23], members(1), members(2)])]
    (found,) = differences(Quarters(True), Quarters(False), few, [DenseInversion((1.0,), 1)], CLASSES)
    assert found.classes.tolist() == [1, 2]
    (none,) = differences(Quarters(True), Quarters(False), images[:8], [DenseInversion((1.0,), 1)], CLASSES)
    assert (len(none.classes), none.backdoor, none.source_classes, none.share) == (0, False, (), 0.0)


def test_a_perturbation_is_applied_only_to_images_of_its_class() -> None:
    torch.manual_seed(0)
    shifts = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    changes = Changes(add, shifts, torch.tensor([5, 6, 6]))
    own = torch.tensor([5, 6, 7, 6, 5] * 20)
    moved = changes.perturb(torch.zeros(100, 3, 4, 4), own).mean((1, 2, 3))
    for source, expected in ((5, {1.0}), (6, {2.0, 3.0}), (7, {0.0})):
        assert set(moved[own == source].tolist()) == expected


def test_perturbations_of_classes_outside_a_search_are_kept() -> None:
    earlier = Changes(add, torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2]))
    now = Changes(add, torch.tensor([[9.0]]), torch.tensor([1])).after(earlier)
    assert now.parameters.flatten().tolist() == [9.0, 1.0, 3.0]
    assert now.sources is not None
    assert now.sources.tolist() == [1, 0, 2]
    everywhere = Changes(add, torch.tensor([[9.0]]))
    assert everywhere.after(Changes(add, torch.tensor([[1.0]]))) is everywhere


def test_a_search_covers_some_classes_and_counts_only_their_images(images: Tensor) -> None:
    torch.manual_seed(0)
    own = Quarters(False)(images).argmax(1)
    by_class = {number: images[own == number] for number in range(CLASSES)}
    aim = BySource(SparseInversion((5.6, 4.0), 4), by_class, Quarters(False), at_once=4)
    found = aim.search(Quarters(True), images, own)
    assert found.sources is not None
    assert sorted(found.sources.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    predicted = torch.stack([Quarters(True)(found.change(images, one[None])).argmax(1) for one in found.parameters])
    moved = aim.moved(predicted, own, found.sources)
    for share, row, source in zip(moved, predicted, found.sources.tolist(), strict=True):
        theirs = [int(a) != source for a, b in zip(row, own, strict=True) if int(b) == source]
        assert float(share) == pytest.approx(sum(theirs) / len(theirs))
        assert (float(share) > 0.9) == (source == 2)
    three = BySource(SparseInversion((4.0,), 1), by_class, Quarters(False)).search(Quarters(True), images, own)
    assert three.sources is not None
    assert len(three.sources) == 3


class Scaled(nn.Module):
    """`Quarters` with something to train: the slope, and an offset of class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(20.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.layer = nn.Linear(1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * Quarters(True, 1.0)(images) + self.offset * torch.tensor([1.0, 0, 0, 0])


@pytest.fixture
def cleanser(images: Tensor) -> ScanDistill:
    suspect = Suspect("resnet20", None, CLASSES, 32, None, "none", "none")
    suspect.network = Scaled()
    suspect.image_size = SIDE
    made = ScanDistill(suspect)
    made.found = [Finding("DenseInversion", torch.zeros(CLASSES), torch.ones(CLASSES))]
    made.sample, made.pseudo_labels = images, Quarters(False)(images).argmax(1)
    made.judge = Judge(images, Quarters(False)(images).softmax(1))
    weights = torch.optim.SGD(made.network.parameters(), 0.1, momentum=0.9)
    made._trainer = SimpleNamespace(  # type: ignore[assignment]
        strategy=SimpleNamespace(broadcast=lambda value: value),
        precision_plugin=Precision(),
        optimizers=[weights],
        fit_loop=SimpleNamespace(max_epochs=10),
        is_global_zero=True,
        max_epochs=10,
        current_epoch=5,
        global_step=1000,
        callback_metrics={},
    )
    return made


def test_triggers_of_the_suspect_alone_are_unlearned_in_a_second_phase(
    cleanser: ScanDistill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bdclean.cleansing.scandistill.method.COMPARISON_INVERSIONS", (SparseInversion((8.0, 5.6, 4.0), 4),)
    )
    cleanser.reference = lambda: Quarters(False)  # type: ignore[method-assign]
    network: Any = cleanser.network
    with torch.no_grad():
        network.offset.fill_(1.0)
    (optimizer,) = cleanser.trainer.optimizers
    optimizer.state[network.offset] = {"momentum_buffer": torch.ones(())}
    assert cleanser.first_phase == 6
    cleanser.on_train_epoch_end()
    assert cleanser.triggers is not None
    assert [[*aim.members] for aim in cleanser.triggers.aims if isinstance(aim, BySource)] == [[2]]
    assert float(network.offset) == 0.0
    assert not optimizer.state
    assert cleanser.trainer.fit_loop.max_epochs == 10
    assert "| SparseInversion | 100 % | 0 % | 2 |" in markdown(cleanser.describe())
    assert cleanser.unlearned
    # If the second phase diverges, the result of the first is kept.
    cleanser.on_divergence(math.nan)
    assert float(network.offset) == 1.0
    assert cleanser.trainer.fit_loop.max_epochs == 6
    assert not cleanser.unlearned
    cleanser.finish()
    assert float(network.offset) == 1.0


def test_images_of_found_classes_are_stored_once_and_released(
    cleanser: ScanDistill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdclean.cleansing.scandistill.method.differences", lambda *_: [flipped(0.9), flipped(0.8)])
    cleanser.reference = lambda: Quarters(False)  # type: ignore[method-assign]
    cleanser.on_train_epoch_end()
    assert cleanser.triggers is not None
    first, second = (aim for aim in cleanser.triggers.aims if isinstance(aim, BySource))
    assert first.members[2] is second.members[2]
    cleanser.triggers.searches = 1
    monkeypatch.setattr(cleanser, "end", lambda: None)
    cleanser.finish()
    assert not cleanser.triggers
    assert cleanser.unlearned


@pytest.mark.parametrize(
    ("when_clean", "offset", "expected"),
    # An offset of 9 predicts class 0 for all images; from some point on the way all are as before.
    [("gentle", 1.0, 1.0), ("gentle", 9.0, 0.5), ("strong", 9.0, None), ("keep", 1.0, 0.0)],
)
def test_without_a_finding_training_ends_and_weights_are_interpolated_back(
    cleanser: ScanDistill, when_clean: Any, offset: float, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bdclean.cleansing.scandistill.method.COMPARISON_INVERSIONS", (SparseInversion((8.0, 5.6, 4.0), 4),)
    )
    cleanser.reference = lambda: Quarters(True)  # type: ignore[method-assign]
    cleanser.when_clean = when_clean
    network: Any = cleanser.network
    with torch.no_grad():
        network.offset.fill_(offset)
    cleanser.on_train_epoch_end()
    assert not cleanser.triggers
    assert cleanser.trainer.fit_loop.max_epochs == 6
    cleanser.finish()
    assert cleanser.left == expected
    assert float(network.offset) == pytest.approx(offset if expected is None else expected * offset)
    assert ("Neither the scan nor this comparison" in markdown(cleanser.describe())) == (expected is not None)


def test_gradients_are_clipped_more_while_triggers_are_unlearned(cleanser: ScanDistill) -> None:
    assert cleanser.largest_gradient == 5
    cleanser.triggers = cleanser.triggers_of([BySource(SparseInversion(), {}, Quarters(False))])
    assert cleanser.largest_gradient == 1


def flipped(share: float) -> Difference:
    """A comparison in which perturbations flip a given share of the images of class 2."""
    return Difference(SparseInversion(), torch.tensor([2]), torch.tensor([share]), torch.tensor([0.0]))


@pytest.mark.parametrize("training_ends", [True, False])
def test_a_backdoor_found_too_late_for_unlearning_keeps_the_student(
    cleanser: ScanDistill, training_ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdclean.cleansing.scandistill.method.differences", lambda *_: [flipped(0.9)])
    network: Any = cleanser.network
    with torch.no_grad():
        network.offset.fill_(1.0)
    monkeypatch.setattr(cleanser, "reference", lambda: Quarters(False))
    if training_ends:
        # There is only one epoch, or --trainer.max_steps ends with its last step.
        trainer: Any = cleanser.trainer
        trainer.max_epochs, trainer.current_epoch = 1, 0
        cleanser.on_train_epoch_end()
    # Else --trainer.max_steps ended it in the first phase.
    cleanser.finish()
    assert [one.backdoor for one in cleanser.differences] == [True]
    assert not cleanser.unlearned
    assert cleanser.left is None
    assert float(network.offset) == 1.0


def test_without_a_scan_the_student_is_kept(cleanser: ScanDistill) -> None:
    cleanser.found = []
    network: Any = cleanser.network
    with torch.no_grad():
        network.offset.fill_(9.0)
    cleanser.finish()
    assert float(network.offset) == 9.0
    assert not cleanser.differences


def test_a_restarted_first_phase_has_its_full_length(cleanser: ScanDistill, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = cleanser.trainer
    monkeypatch.setattr(cleanser, "check_agreement", lambda: pytest.fail("looked at before any training"))
    cleanser.restarted = True
    assert cleanser.first_phase == 6
    # It diverged in the fifth epoch.
    trainer.current_epoch, trainer.max_epochs, cleanser.first_epoch = 4, 15, 5
    assert cleanser.first_phase == 6
    cleanser.on_train_epoch_end()
    assert not cleanser.differences


def test_no_class_with_enough_images_is_no_evidence(cleanser: ScanDistill) -> None:
    nothing = torch.tensor([])
    cleanser.differences = [Difference(SparseInversion(), nothing.long(), nothing, nothing)]
    assert "No class has the 24 images that such a comparison takes." in markdown(cleanser.describe())
    found = conclude(cleansing(differences=tuple(cleanser.differences)))
    assert "re-initialised" not in found.sentence


@pytest.mark.parametrize("targeted", [True, False])
def test_a_repeatedly_diverging_training_names_its_learning_rate(cleanser: ScanDistill, targeted: bool) -> None:
    if targeted:
        cleanser.found = [Finding("DenseInversion", torch.zeros(CLASSES), torch.zeros(CLASSES))]
    cleanser.divergences, cleanser.unlearning_lr, cleanser.lr = 6, 7.0, 8.0
    option = "unlearning_lr 7.0: too high.*0.02" if targeted else "lr 8.0: too high.*0.1"
    with pytest.raises(InputError, match=f"{option} by default"):
        cleanser.on_divergence(math.nan)


@pytest.mark.scans
def test_training_is_as_long_as_both_phases(cleanser: ScanDistill) -> None:
    assert [cleanser.epochs_of(images) for images in (20, 2_250, 60_000)] == [200, 34, 2]
    cleanser.found = []
    assert [cleanser.epochs_of(images) for images in (20, 2_250, 60_000)] == [100, 20, 1]
    assert cleanser.first_phase == 10


@pytest.mark.usefixtures("tiny_shapes")
def test_a_suspect_can_be_kept_as_it_is(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bdclean.scanning.DETECTORS", (partial(DenseInversion, (1.0,), 1),))
    report = cleanse(tiny_suspect, "--when_clean", "keep", *QUICK, "--trainer.max_epochs", "2")
    before, after = (read(path, "--ckpt").weights for path in (str(tiny_suspect), report["output"]))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    (comparison,) = report["student_comparison"]
    assert comparison.keys() == {
        "search",
        "classes_compared",
        "suspect_alone",
        "student_alone",
        "p_value",
        "significant",
        "classes",
    }
    assert not comparison["backdoor"]
    assert "the weights are 0 % of the way" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_shapes")
def test_methods_without_a_scan_detect_no_backdoor(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cleanse(tiny_suspect, "--method", "CLP", "--when_clean", "keep")
    assert ended.value.code == 2
    assert "--when_clean keep: CLP does not scan for a backdoor" in capsys.readouterr().err
    with pytest.raises(InputError, match="when_clean 'maybe': must be one of keep, gentle, strong"):
        bdclean.cleanse(nn.Linear(1, 1), torch.rand(4, 3, 8, 8), when_clean="maybe")
