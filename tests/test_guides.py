"""The guides work as written: their blocks run one after the other, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bdclean
from bdclean.cli.main import main
from tests.conftest import CONFIGS

GUIDES = CONFIGS.parent / "docs" / "guides"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@pytest.mark.filterwarnings("ignore:DO NOT TRUST")
def test_hugging_face() -> None:
    pytest.importorskip("transformers")
    names: dict[str, Any] = {}
    for language, block in BLOCK.findall((GUIDES / "hugging_face.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(block, names)
            continue
        for words in map(shlex.split, block.splitlines()):
            if words[0] == "bdclean":
                main([*words[1:], "--trainer.enable_progress_bar", "false", "--trainer.logger", "false"])
    assert names["scan"].subject.description["mean"] == [0.5] * 3
    assert names["result"].conclusion is not None
    assert sorted(path.name for path in Path("cleansed").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert Path("cleansed-again", "model.safetensors").exists()


def test_filter_in_python() -> None:
    torch.manual_seed(0)
    suspect, cleansed = (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) for _ in range(2))
    names: dict[str, Any] = {"suspect": suspect, "cleansed": cleansed}
    names |= {"images": torch.randn(30, 3, 8, 8), "trusted": torch.randn(20, 3, 8, 8)}
    (block,) = (text for kind, text in BLOCK.findall((GUIDES / "filter.md").read_text("utf-8")) if kind == "python")
    exec(block, names)
    result = names["result"]
    logits = [network(names["images"]).detach() for network in (suspect, cleansed)]
    chosen = logits[0].argmax(1)
    odds = [one.gather(1, chosen[:, None])[:, 0] - _without(one, chosen).logsumexp(1) for one in logits]
    torch.testing.assert_close(result.scores, odds[0] - odds[1], atol=1e-3, rtol=1e-3)
    assert result.p_values.shape == (30,)
    assert torch.equal(result.flagged, result.scores > result.threshold.value)


def _without(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return logits.scatter(1, classes[:, None], -torch.inf)


def test_filter_refuses_wrong_arguments() -> None:
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), torch.randn(30, 3, 8, 8)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "cleansed: needed by Disagreement"),
        ({"cleansed": 3}, "cleansed: is a int"),
        ({"score": "NoSuch"}, "score NoSuch: no such class"),
        ({"score": "STRIP", "clean": images.byte()}, "clean: must have"),
        ({"score": "STRIP", "alpha": 2.0}, "alpha 2.0: must be above 0"),
    ]
    for options, message in wrong:
        with pytest.raises(bdclean.InputError, match=f"^{message}"):
            bdclean.filter(network, images, **options)
    result = bdclean.filter(network, images, score="STRIP", alpha=0.1)
    assert (result.flagged_count, result.threshold.value, result.p_values) == (3, None, None)
