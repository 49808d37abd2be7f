import math

import pytest
import torch
from torch import Tensor, nn

from bdclean import metrics
from bdclean.modules import AttackModule


@pytest.fixture
def judged() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5, generator=generator)
    labels = torch.randint(5, (200,), generator=generator)
    return logits, torch.full_like(labels, 2), labels


def test_figures_against_a_loop(judged: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, targets, labels = judged
    right = hit = kept = counted = 0
    for row, target, label in zip(logits.tolist(), targets.tolist(), labels.tolist(), strict=True):
        answer = row.index(max(row))
        right += answer == label
        if label != target:
            counted += 1
            hit += answer == target
            kept += answer == label
    expected = [100 * right / 200, 100 * hit / counted, 100 * kept / counted]
    accumulated = [metrics.Accuracy(), metrics.AttackSuccessRate(), metrics.RobustAccuracy()]
    for part in torch.arange(200).tensor_split(7):
        for metric in accumulated:
            metric.update(logits[part], targets[part], labels[part])
    assert [metric.compute().item() for metric in accumulated] == pytest.approx(expected)


def test_images_of_the_target_class_do_not_count() -> None:
    target = torch.zeros(3, dtype=torch.long)
    assert not metrics.attack_successes(torch.eye(3), target, target).any()
    metric = metrics.AttackSuccessRate()
    metric.update(torch.eye(3), target, target)
    assert math.isnan(metric.compute().item())


def test_figures_that_are_equal_at_first_stay_apart() -> None:
    asr_and_ra = AttackModule("small_cnn").judging.test[1]
    answers, labels = torch.eye(10), torch.full((1,), 3)
    # Neither the target's nor the true class, then the target's, then the true one twice.
    for answer in (7, 0, 3, 3):
        asr_and_ra.update(answers[answer : answer + 1], torch.zeros_like(labels), labels)
    assert asr_and_ra.compute() == {"test/asr": 25, "test/ra": 50}


def test_agreement() -> None:
    metric = metrics.Agreement()
    metric.update(torch.eye(4), torch.eye(4)[[0, 1, 2, 2]])
    assert metric.compute().item() == 75


@pytest.mark.parametrize(
    ("suspect", "cleansed", "expected"),
    [((90, 100), (90, 0), 100), ((90, 100), (90, 100), 50), ((90, 100), (80, 10), 90), ((90, 5), (92, 9), 50)],
)
def test_defense_effectiveness_rate(
    suspect: tuple[float, float], cleansed: tuple[float, float], expected: float
) -> None:
    assert metrics.defense_effectiveness_rate(suspect, cleansed) == expected


def test_the_mean_loss_is_per_image() -> None:
    metric = metrics.MeanLoss()
    for loss, images in ((2.0, 3), (6.0, 1)):
        metric.update(torch.tensor(loss, requires_grad=True), images)
    assert metric.compute() == 3
    metric.update(torch.tensor(math.nan), 1)
    assert metric.compute().isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_loss_stays_in_float32_for_a_half_precision_network(dtype: torch.dtype) -> None:
    metric = metrics.MeanLoss()
    nn.ModuleList([metric]).to(dtype)
    for _ in range(400):
        metric.update(torch.tensor(2.0, dtype=dtype), 128)
    assert metric.compute() == 2


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, method 3; and what is at the ends.
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18), (29, 29, 88.30, 100)],
)
def test_intervals_as_published(hits: int, images: int, low: float, high: float) -> None:
    assert metrics.Share(hits, images).interval == pytest.approx((low, high), abs=0.005)


def test_a_metric_stores_its_number_of_images(judged: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, targets, labels = judged
    accuracy, asr = metrics.Accuracy(), metrics.AttackSuccessRate()
    for metric in (accuracy, asr):
        assert metric.share is None
        metric.update(logits, targets, labels)
        value = metric.compute().item()
        assert metric.share is not None
        assert 100 * metric.share.hits / metric.share.images == pytest.approx(value)
    assert (accuracy.share.images, asr.share.images) == (200, int((labels != 2).sum()))  # type: ignore[union-attr]
