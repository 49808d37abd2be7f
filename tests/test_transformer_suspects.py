"""A vision transformer of timm is trained with a backdoor, scanned and cleansed from start to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bdclean.checkpoint import read
from bdclean.cli.main import main
from tests.conftest import QUICK

pytest.importorskip("timm")

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.usefixtures("tiny_shapes")
def test_a_vision_transformer_from_fit_to_cleanse() -> None:
    arch = ["--model.arch", "timm/vit_tiny_patch16_224", "--model.arch_kwargs", json.dumps(TINY)]
    main(["fit", *arch, "--data.attack", "BadNets", *QUICK])
    suspect = read("suspect.ckpt")
    assert suspect.model["arch_kwargs"] == TINY
    main(["cleanse", "--ckpt", "suspect.ckpt", "--scan", "true", *QUICK])
    result = json.loads(Path("cleansed.json").read_text())
    assert result["method"] == "ScanDistill"
    assert result["cleansed"]["asr"] is not None
    assert result["scan"]["suspect"]["detectors"]
    assert read("cleansed.ckpt").weights.keys() == suspect.weights.keys()
