"""Every cleansing method on the command line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bdclean import cleansing
from tests.conftest import cleanse

METHODS = [name for name in cleansing.__all__ if name != "Cleanser"]
CHANGES_NOTHING = {"ANP", "BNP", "EP", "RNP", "MCR", "NC"}
"""Of a network that has hardly been trained: what they would prune or take costs more than they may, or nothing is
conspicuous."""


SHORT = {
    "BTIDBF": ("mask_epochs", "generator_epochs"),
    "NC": ("rounds",),
    "TSBD": ("unlearning_epochs",),
    "UNIT": ("bound_steps",),
}
"""Options with a number of passes over the images."""


def quick(name: str, epochs: int) -> list[str]:
    """Options that shorten a method, if it trains."""
    passes = [word for option in SHORT.get(name, ()) for word in (f"--method.{option}", "1")]
    return [*passes, "--trainer.max_epochs", str(epochs)] if getattr(cleansing, name).epochs else []


def weights(path: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return loaded


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_changes_the_network_and_keeps_its_architecture(name: str, tiny_suspect: Path) -> None:
    report = cleanse(tiny_suspect, "--method", name, *quick(name, 2))
    assert report["method"] == name
    assert report["unlabeled_images"] == 60
    assert report["method_images"] == (60 if getattr(cleansing, name).uses_images else 0)
    before, after = weights(tiny_suspect), weights(Path("cleansed.ckpt"))
    assert {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in after.items()}
    assert all(value.isfinite().all() for value in after.values())
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed or name in CHANGES_NOTHING


@pytest.mark.usefixtures("tiny_shapes")
def test_labels_are_used_if_specified(tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    supervise = cleansing.FineTune.supervise

    def watch(self: cleansing.FineTune, batch: Any) -> Any:
        images, targets = supervise(self, batch)
        seen.append((batch, targets))
        return images, targets

    monkeypatch.setattr(cleansing.FineTune, "supervise", watch)
    report = cleanse(tiny_suspect, "--method", "FineTune", "--trainer.max_epochs", "1")
    assert all(batch.labels is None and targets.is_floating_point() for batch, targets in seen)
    assert report["options"]["supervision"] == "teacher"
    seen.clear()
    labelled = ["--method.supervision", "labels", "--trainer.max_epochs", "1"]
    report = cleanse(tiny_suspect, "--method", "FineTune", *labelled)
    assert all(torch.equal(batch.labels, targets) for batch, targets in seen)
    assert report["options"]["supervision"] == "labels"
