"""Networks of two classes get a verdict, by comparison with a re-initialised copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bdclean
from bdclean.reporting.scans import Comparison, Moved, Verdict
from bdclean.scanning import Finding, SparseInversion
from bdclean.scanning.difference import Difference
from tests.strangers import SmallVGG

FINDINGS = (Finding("MaximumMargin", torch.zeros(2), torch.ones(2)),)


def difference(forward: tuple[float, float], backward: tuple[float, float]) -> Difference:
    hunter = SparseInversion((1.0,), 1)
    return Difference(hunter, torch.arange(2), torch.tensor(forward), torch.tensor(backward))


def test_a_change_that_flips_the_network_alone_is_a_backdoor() -> None:
    found = Verdict(
        FINDINGS, 0.01, ("cat", "dog"), (difference((0.0, 0.1), (0.1, 0.1)), difference((0.6, 0), (0, 0.1)))
    )
    assert found.backdoor
    # Class 0 is flipped, so that it goes to class 1.
    assert found.suspected == 1
    assert found.text == (
        "a backdoor towards class 1 (dog) (compared with a re-initialised copy, 60 % of a class in the network alone, "
        "10 % in its copy alone)"
    )
    assert json.loads(json.dumps(found.to_json()))["compared"][1]["stands_out"]


def test_what_flips_both_is_none() -> None:
    found = Verdict(FINDINGS, 0.01, (), (difference((0.5, 0.1), (0.3, 0.1)),))
    assert found.backdoor is False
    assert found.text.startswith("no backdoor found (compared")


@pytest.mark.parametrize(
    "compared", [(), (Difference(SparseInversion((1.0,), 1), torch.zeros(0), torch.zeros(0), torch.zeros(0)),)]
)
def test_without_a_comparison_there_is_no_saying(compared: tuple[Difference, ...]) -> None:
    found = Verdict(FINDINGS, 0.01, (), compared)
    assert found.backdoor is None
    assert found.text.startswith("no saying")
    # And nothing is said for a network that was not judged.
    assert not any("a scan of it" in one for one in Comparison(found, found, (Moved(None, None),)).evidence)


def test_a_scan_of_two_classes_compares_and_leaves_no_files() -> None:
    torch.manual_seed(0)
    model = SmallVGG(num_classes=2)
    images = torch.rand(120, 3, 32, 32)
    found = bdclean.scan(model, images, enable_progress_bar=False, accelerator="cpu")
    assert len(found.verdict.compared) == 1
    assert not list(Path.cwd().iterdir())
