"""The guides work as written: their blocks run one after the other, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

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
