"""Networks with many classes: screening, candidates and controls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bdclean.scanning import ALPHA, MANY, DenseInversion, SparseInversion, scan
from bdclean.scanning.chosen import CANDIDATES, CONTROLS, Chosen, choose, find_among, selected
from bdclean.scanning.screening import FlipToGroup, screen
from bdclean.training import BATCH_PIXELS

CLASSES, TARGET = 100, 38


@pytest.mark.parametrize("num_classes", [100, 1000])
def test_p_values_are_calibrated_for_any_selection(num_classes: int) -> None:
    # The worst screening: it selects the classes with the largest scores by chance.
    trials = 4000
    scores = 0.2 + 0.05 * torch.randn(trials, num_classes, generator=torch.Generator().manual_seed(0))
    controls, others = scores[:, :CONTROLS], scores[:, CONTROLS:]
    chosen = torch.cat([others.topk(CANDIDATES).values, controls], 1)
    least = torch.stack([selected(one, CANDIDATES, num_classes, 0.0).min() for one in chosen])
    for alpha in (0.01, 0.05, 0.2):
        share = float((least <= alpha).float().mean())
        # Three standard deviations of the share; and not far below, or it would detect nothing.
        assert share <= alpha + 3 * (alpha * (1 - alpha) / trials) ** 0.5
    assert (least <= 0.2).float().mean() > 0.1


def test_an_outlier_is_found_among_candidates_and_controls() -> None:
    scores = torch.full((CANDIDATES + CONTROLS,), 0.45)
    for place in (0, CANDIDATES + 3):
        outlier = scores.clone()
        outlier[place] = 0.8
        found = selected(outlier, CANDIDATES, 1000, 0.035)
        assert found[place] < ALPHA / 5
        assert found.argmin() == place
    assert selected(scores, CANDIDATES, 1000, 0.035).min() == 1
    assert selected(scores, CANDIDATES, 1000, 0.0).min() == 1


class Shades(nn.Module):
    """Classes are a hundred shades of grey; a faint chequerboard flips to one class."""

    def __init__(self, backdoor: bool) -> None:
        super().__init__()
        self.backdoor = backdoor

    def forward(self, images: Tensor) -> Tensor:
        shade = images.mean((1, 2, 3))[:, None]
        logits = -40 * (shade - torch.linspace(0, 1, CLASSES)).abs()
        if self.backdoor:
            chequers = (1 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)).float()
            seen = (images * chequers).mean((1, 2, 3))
            logits = logits.index_add(1, torch.tensor([TARGET]), (2000 * seen - 30)[:, None])
        return logits


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(160, 1, 1, 1, generator=generator)
    return 0.1 * torch.rand(160, 3, 8, 8, generator=generator) + 0.9 * shades


def test_controls_do_not_depend_on_the_screening(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    easy = torch.rand(CLASSES, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("bdclean.scanning.chosen.screen", lambda *_: easy.clone())
    chosen = choose(Shades(True), images, CLASSES)
    assert len({*chosen.classes.tolist()}) == CANDIDATES + CONTROLS
    rest = [number for number in easy.argsort(descending=True).tolist() if number not in chosen.controls.tolist()]
    assert chosen.candidates.tolist() == rest[:CANDIDATES]
    monkeypatch.setattr("bdclean.scanning.chosen.screen", lambda *_: 1 - easy)
    assert torch.equal(choose(Shades(True), images, CLASSES).controls, chosen.controls)


def test_the_screening_finds_the_easiest_class_of_each_group(images: Tensor) -> None:
    # One class becomes more probable with each brighter pixel; the others do not change.
    def network(images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), CLASSES)
        return logits.index_add(1, torch.tensor([TARGET]), 5 * images.sum((1, 2, 3))[:, None])

    own = torch.zeros(len(images), dtype=torch.long)
    own = torch.zeros(len(images), dtype=torch.long)
    found = screen(network, images * 0, own, CLASSES, [DenseInversion((2.8, 2.0))])
    assert found.argmax() == TARGET
    goal = FlipToGroup(network, images, own, torch.eye(2, CLASSES).bool(), 4)
    # Classes 0 and 1: images of class 0 do not count for it.
    assert goal.quick_gain(lambda images, _: images * 0, torch.zeros(2, 1)).tolist() == pytest.approx(
        [0.0, -math.log(CLASSES)], abs=1e-4
    )


def test_a_screening_runs_as_many_groups_as_a_batch_has_room_for() -> None:
    images = torch.rand(16, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    sizes = []

    def network(images: Tensor) -> Tensor:
        sizes.append(images.shape[0] * images.shape[2] * images.shape[3])
        return images.mean((2, 3)).repeat(1, CLASSES)[:, :CLASSES]

    screen(network, images, torch.zeros(16, dtype=torch.long), CLASSES, [DenseInversion((2.8,), 1)])
    assert max(sizes) <= BATCH_PIXELS


@pytest.mark.parametrize("backdoor", [True, False])
def test_of_many_classes_some_are_searched(images: Tensor, backdoor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Chosen(torch.tensor([3, TARGET]), torch.arange(40, 60))
    monkeypatch.setattr("bdclean.scanning.choose", lambda *_: chosen)
    assert CLASSES > MANY
    (finding,) = scan(Shades(backdoor), images, CLASSES, [DenseInversion((2.8, 2.0, 1.4))])
    assert finding.searched == sorted(chosen.classes.tolist())
    assert (finding.p_value < ALPHA) == backdoor
    if backdoor:
        assert finding.suspected == TARGET


def test_sources_without_images_do_not_count(images: Tensor) -> None:
    # Three classes have images; a control that is one of them is judged by the others.
    few = images[:12]
    chosen = Chosen(torch.tensor([TARGET]), torch.arange(5))
    finding = find_among(SparseInversion((4.0,), 2), Shades(True), few, CLASSES, chosen)
    assert finding.scores[chosen.classes].isfinite().all()
    assert finding.scores.isnan().sum() == CLASSES - 6
