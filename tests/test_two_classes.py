"""Networks of two classes get a verdict, by comparison with a re-initialised copy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bdclean
from bdclean.reporting.scans import Comparison, RecoveredASR, Verdict
from bdclean.scanning import Finding
from tests.strangers import SmallVGG


def findings(*scores: tuple[float, float]) -> tuple[Finding, ...]:
    """A finding of margins, which needs no reference, and findings of inversions."""
    inversions = [Finding("PatchInversion", torch.tensor(one), torch.ones(2), lambda images: images) for one in scores]
    return (Finding("MaximumMargin", torch.tensor([0.0, 9.0]), torch.ones(2)), *inversions)


def test_a_score_far_above_the_copys_is_a_backdoor() -> None:
    own, other = findings((0.6, 0.6), (0.1, 0.9)), findings((0.55, 0.5), (0.3, 0.3))
    found = Verdict(own, 0.01, ("cat", "dog"), other)
    assert found.backdoor
    assert found.suspected == 1
    assert found.text == (
        "backdoor towards class 1 (dog) (PatchInversion scores 0.90 and 0.10 for classes 1 and 0, and 0.30 and 0.30 in "
        "a re-initialised copy)"
    )
    assert json.loads(json.dumps(found.to_json()))["excess"]["class"] == 1


def test_an_excess_of_both_classes_is_no_backdoor() -> None:
    found = Verdict(findings((0.9, 0.8)), 0.01, (), findings((0.4, 0.4)))
    assert found.backdoor is False
    assert found.excess is not None
    assert (found.excess.number, found.excess.size) == (0, pytest.approx(0.1))
    assert found.text.startswith("no backdoor found (PatchInversion scores 0.90 and 0.80 for classes 0 and 1, and 0.40")


@pytest.mark.parametrize(("size", "backdoor"), [(0.2, False), (0.3, None), (0.6, True)])
def test_between_common_and_rare_excesses_it_is_inconclusive(size: float, backdoor: bool | None) -> None:
    found = Verdict(findings((0.3 + size, 0.3)), 0.01, (), findings((0.3, 0.3)))
    assert found.backdoor is backdoor
    assert found.text.startswith("inconclusive (PatchInversion scores 0.60 and 0.30") == (backdoor is None)


def test_without_a_reference_it_is_inconclusive() -> None:
    found = Verdict(findings((0.9, 0.6)), 0.01)
    assert found.backdoor is None
    assert found.text.startswith("inconclusive")
    compared = Comparison(replace(found, reference=found.findings), (RecoveredASR(None, None),) * 2)
    assert not any("a scan of the cleansed network" in one for one in compared.evidence)


def test_of_three_classes_no_reference_is_needed() -> None:
    three = (Finding("PatchInversion", torch.zeros(3), torch.ones(3), lambda images: images),)
    assert Verdict(three, 0.01, (), three).excess is None


def test_a_scan_of_two_classes_compares_and_leaves_no_files() -> None:
    torch.manual_seed(0)
    model = SmallVGG(num_classes=2)
    images = torch.rand(120, 3, 32, 32)
    found = bdclean.scan(model, images, enable_progress_bar=False, accelerator="cpu")
    assert found.verdict.excess is not None
    assert len(found.verdict.reference) == len(found.verdict.findings)
    assert not list(Path.cwd().iterdir())
