"""The parts of `ScanDistill`: triggers on images, evaluation on held-out images, interpolation of weights."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bdclean.cleansing.scandistill.aims import AllToOne, Changes
from bdclean.cleansing.scandistill.interpolate import Path, retreat, settle
from bdclean.cleansing.scandistill.judging import Judge
from bdclean.cleansing.scandistill.triggers import Triggers
from bdclean.perturbations import add, overlay
from bdclean.scanning import SparseInversion
from bdclean.scanning.goals import FlipToClass

CORNER = torch.zeros(1, 4, 32, 32)
CORNER[..., :3, :3] = 1


def corner_is_white(images: Tensor) -> Tensor:
    """Logits by the mean brightness, unless the upper left corner is white: then class 2."""
    bright = images.mean((1, 2, 3))
    corner = images[:, :, :3, :3].amin((1, 2, 3))
    return torch.stack([10 * (0.5 - bright), 10 * (bright - 0.5), 100 * (corner - 0.9)], 1)


def predict(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([corner_is_white(part).argmax(1) for part in parts])


@pytest.fixture
def images() -> Tensor:
    return 0.8 * torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(images: Tensor, share: tuple[float, float] = (0.1, 0.4), aims: int = 1) -> Triggers:
    targets = [AllToOne(SparseInversion((4.0, 2.0), 2, 8), 2)] * aims
    return Triggers(targets, corner_is_white, corner_is_white, predict, images, predict([images]), share)


def test_the_first_images_of_a_batch_are_perturbed_in_place() -> None:
    triggers = made(torch.rand(16, 3, 32, 32), (0.25, 0.5))
    triggers.student_asr = 0.5
    triggers.in_suspect = [Changes(add, torch.full((number, 3, 32, 32), float(number))) for number in (1, 2)]
    shifts = (triggers.perturb(triggers.images, triggers.pseudo_labels) - triggers.images).mean((1, 2, 3))
    first = 1.0 if shifts[0] < 1.5 else 2.0
    assert torch.allclose(shifts, torch.tensor([first] * 3 + [3 - first] * 3 + [0.0] * 10), atol=1e-5)


def test_every_kind_of_perturbation_is_used_in_small_batches() -> None:
    torch.manual_seed(0)
    triggers = made(torch.rand(2, 3, 32, 32), (0.5, 0.5))
    triggers.in_student = [Changes(add, torch.full((1, 3, 32, 32), float(shift))) for shift in (1, 2, 3)]
    batch, own = triggers.images, triggers.pseudo_labels
    shifts = {round(float((triggers.perturb(batch, own) - batch)[0].mean())) for _ in range(40)}
    assert shifts == {1, 2, 3}


def test_a_search_is_due_after_an_interval_of_images(images: Tensor) -> None:
    triggers = made(images)
    due = [triggers.due(1000) for _ in range(9)]
    assert [1000 * step for step, now in enumerate(due) if now] == [0, 3000, 5000, 7000]
    assert triggers.searches == 4


def test_a_simpler_perturbation_is_searched_once_and_unlearned_as_often(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def simplify(self: Any, goal: FlipToClass, parameters: Tensor) -> Tensor:
        asked.append((goal.network, goal.classes.tolist()))
        return torch.full_like(parameters, 0.75)

    monkeypatch.setattr(SparseInversion, "simplify", simplify)
    triggers = made(images)
    for _ in range(2):
        triggers.search()
        student, suspect = (found.parameters for found in triggers.changes)
        assert len(suspect) == 2 * len(student)
        assert bool((suspect[len(student) :] == 0.75).all())
    # The suspect does not change.
    assert asked == [(corner_is_white, [2])]


def test_the_effect_is_the_mean_share_of_images_that_flip(images: Tensor) -> None:
    triggers = made(images)
    own = triggers.pseudo_labels.clone()
    own[:10] = 2  # which do not count
    nothing = torch.zeros_like(CORNER)
    for parameters, expected in ((torch.cat([CORNER, nothing]), 0.5), (torch.cat([CORNER, nothing, nothing]), 1 / 3)):
        changes = [Changes(overlay, parameters)]
        assert triggers.flipped(changes, images, own) == pytest.approx(expected)
        assert math.isnan(triggers.flipped(changes, images[:10], own[:10]))
    triggers.in_suspect = [Changes(overlay, CORNER)]
    assert triggers.effect() == 1.0


def test_a_judge_counts_agreements() -> None:
    probabilities = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    judge = Judge(torch.zeros(200, 3, 2, 2), probabilities)
    predicted = torch.randint(4, (200,), generator=torch.Generator().manual_seed(1))
    own = [max(range(4), key=row.__getitem__) for row in probabilities.tolist()]
    kept = sum(a == int(b) for a, b in zip(own, predicted, strict=True)) / 200
    rows = zip(probabilities.tolist(), own, predicted.tolist(), strict=True)
    loss = sum(row[a] - row[b] for row, a, b in rows) / 200
    assert judge.kept(predicted) == pytest.approx(kept)
    assert judge.expected_loss(predicted) == pytest.approx(loss)
    assert judge.expected_loss(judge.pseudo_labels) == 0
    assert judge.harm(predicted).disagreement == pytest.approx(1 - kept)
    assert judge.harm(predicted).uncertainty == pytest.approx(1 - sum(map(max, probabilities.tolist())) / 200)
    assert not judge.harm(judge.pseudo_labels).reasons
    # All images get class 1.
    assert judge.harm(torch.ones_like(judge.pseudo_labels)).reasons


def test_the_expected_loss_is_correct_for_a_calibrated_suspect() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(50_000, 5, generator=generator)).softmax(1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    student = (probabilities.log() + torch.randn(50_000, 5, generator=generator)).argmax(1)
    judge = Judge(torch.zeros(50_000, 1, 1, 1), probabilities)
    lost = float((judge.pseudo_labels == labels).float().mean() - (student == labels).float().mean())
    assert judge.expected_loss(student) == pytest.approx(lost, abs=0.005)
    assert lost > 0.02


@pytest.fixture
def path() -> Path:
    suspect, student = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        suspect.weight.fill_(0.0)
        student.weight.fill_(1.0)
    return Path(suspect, student)


def share_of(path: Path) -> float:
    weight: Any = path.student.weight
    return float(weight.detach())


def test_interpolation_between_two_networks(path: Path) -> None:
    for share in (0.0, 0.5, 1.0, 1.5):
        path.move(share)
        assert share_of(path) == pytest.approx(share)
    assert path.along((0.9, 0.8, 0.7), lambda: share_of(path) > 0.75) == 0.8
    assert path.along((0.9,), lambda: False) == 1.0
    assert path.until((0.9, 0.8, 0.7), lambda: share_of(path) < 0.85) == 0.8
    assert path.until((0.9, 0.8), lambda: False) == 0.8


def test_position_0_restores_counters() -> None:
    suspect, student = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    student(torch.rand(2, 1, 2, 2))
    path = Path(suspect, student)
    path.move(0.5)
    assert int(student.state_dict()["num_batches_tracked"]) == 1
    path.move(0.0)
    assert int(student.state_dict()["num_batches_tracked"]) == 0


@dataclass
class On:
    """Measurements of a student, as functions of its position."""

    path: Path
    flips: Callable[[float], float] = lambda share: 0.0
    keeps: Callable[[float], float] = lambda share: 1.0
    loses: Callable[[float], float] = lambda share: 0.0
    harms: Callable[[float], bool] = lambda share: False

    def effect(self) -> float:
        return self.flips(share_of(self.path))

    def kept(self) -> float:
        return self.keeps(share_of(self.path))

    def expected_loss(self) -> float:
        return self.loses(share_of(self.path))

    def harmful(self) -> bool:
        return self.harms(share_of(self.path))


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        ({}, 0.7),
        ({"flips": lambda share: 0.0 if share > 0.87 else 0.01}, 0.9),
        # If they still work, extrapolate; but not if the agreement falls.
        ({"flips": lambda share: 0.06}, 1.5),
        ({"flips": lambda share: 0.06 if share < 1.24 else 0.01}, 1.25),
        # Once they are unlearned, further while their ASR falls more than the expected accuracy.
        ({"flips": lambda share: 0.03 if share < 1.04 else 0.04 - share / 50}, 1.05),
        ({"flips": lambda share: 0.03 if share < 1.04 else max(0.12 - share / 10, 0.005)}, 1.15),
        (
            {
                "flips": lambda share: 0.03 if share < 1.04 else 0.12 - share / 10,
                "loses": lambda share: 0.0 if share < 1.12 else share / 8 - 0.13,
            },
            1.1,
        ),
        ({"flips": lambda share: 0.06, "keeps": lambda share: 0.9 if share < 1.12 else 0.8}, 1.1),
        ({"flips": lambda share: 0.06, "keeps": lambda share: 0.9 if share == 1 else 0.8}, 1.0),
        # Harm: interpolate further, as long as they stay unlearned.
        ({"harms": lambda share: share > 0.55}, 0.5),
        ({"harms": lambda share: True}, 0.3),
        ({"harms": lambda share: True, "flips": lambda share: 0.0 if share > 0.45 else 0.1}, 0.5),
        # Nothing can be said.
        ({"flips": lambda share: math.nan}, 1.0),
    ],
)
def test_weights_are_interpolated_or_extrapolated_by_the_asr_of_recovered_triggers(
    standing: dict[str, Any], expected: float, path: Path
) -> None:
    assert settle(path, On(path, **standing), spare=False) == expected


@pytest.mark.parametrize(("loss", "expected"), [(0.007, 1.0), (0.008, 0.7)])
def test_a_student_with_an_acceptable_loss_is_kept(loss: float, expected: float, path: Path) -> None:
    assert settle(path, On(path, loses=lambda share: loss), spare=True) == expected


def test_without_a_finding_weights_are_interpolated_until_the_loss_is_acceptable(path: Path) -> None:
    assert retreat(path, On(path)) == 1.0
    assert retreat(path, On(path, loses=lambda share: share / 50)) == 0.3
    # Between networks without batch norms: nothing but the suspect itself.
    assert retreat(path, On(path, loses=lambda share: 0.02 if share else 0.0)) == 0.0
