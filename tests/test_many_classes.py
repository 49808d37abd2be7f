"""Networks of more classes than are searched: a screen, candidates and controls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bdclean.scanning import ALPHA, MANY, DenseInversion, SparseInversion, scan
from bdclean.scanning.chosen import CANDIDATES, CONTROLS, Chosen, choose, find_among, selected

CLASSES, TARGET = 100, 38


@pytest.mark.parametrize("num_classes", [100, 1000])
def test_p_values_are_calibrated_whatever_the_screen_selects(num_classes: int) -> None:
    # The worst screen: it names the classes whose scores are the largest of all by chance.
    trials = 4000
    scores = 0.2 + 0.05 * torch.randn(trials, num_classes, generator=torch.Generator().manual_seed(0))
    controls, others = scores[:, :CONTROLS], scores[:, CONTROLS:]
    chosen = torch.cat([others.topk(CANDIDATES).values, controls], 1)
    least = torch.stack([selected(one, CANDIDATES, num_classes, 0.0).min() for one in chosen])
    for alpha in (0.01, 0.05, 0.2):
        share = float((least <= alpha).float().mean())
        # Three standard deviations of a share of so many trials; not far below either, or it would find nothing.
        assert share <= alpha + 3 * (alpha * (1 - alpha) / trials) ** 0.5
    assert (least <= 0.2).float().mean() > 0.1


def test_one_that_stands_out_is_found_among_candidates_and_controls() -> None:
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
    """A hundred shades of grey; and one class where the last pixel is bright."""

    def __init__(self, backdoor: bool) -> None:
        super().__init__()
        self.backdoor = backdoor

    def forward(self, images: Tensor) -> Tensor:
        shade = images[..., :4, :4].mean((1, 2, 3))[:, None]
        logits = -200 * (shade - torch.linspace(0, 1, CLASSES)).abs()
        if self.backdoor:
            bright = images[..., -1, -1].mean(1)
            logits = logits.index_add(1, torch.tensor([TARGET]), 300 * (bright - 0.5)[:, None])
        return logits


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(160, 1, 1, 1, generator=generator)
    found = (0.1 * torch.rand(160, 3, 8, 8, generator=generator) + 0.9 * shades).clamp(0, 1)
    found[..., -1, -1] = 0.2
    return found


def test_the_screen_names_the_target(images: Tensor) -> None:
    chosen = choose(Shades(True), images, CLASSES)
    assert TARGET in chosen.candidates.tolist()
    assert len({*chosen.classes.tolist()}) == CANDIDATES + CONTROLS


@pytest.mark.scans
@pytest.mark.parametrize("backdoor", [True, False])
def test_of_many_classes_some_are_searched(images: Tensor, backdoor: bool) -> None:
    assert CLASSES > MANY
    detectors = [DenseInversion((2.8, 2.0, 1.4)), SparseInversion((8.0, 5.6, 4.0))]
    findings = scan(Shades(backdoor), images, CLASSES, detectors)
    assert all(len(finding.searched) == CANDIDATES + CONTROLS for finding in findings)
    sparse = findings[1]
    if backdoor:
        assert sparse.suspected == TARGET
        assert sparse.p_value < ALPHA
    else:
        assert min(finding.p_value for finding in findings) > ALPHA


def test_sources_without_images_say_nothing(images: Tensor) -> None:
    # Three classes have images; a control that is one of them is judged by the others.
    few = images[:12]
    chosen = Chosen(torch.tensor([TARGET]), torch.arange(5))
    finding = find_among(SparseInversion((4.0,), 2), Shades(True), few, CLASSES, chosen)
    assert finding.scores[chosen.classes].isfinite().all()
    assert finding.scores.isnan().sum() == CLASSES - 6
