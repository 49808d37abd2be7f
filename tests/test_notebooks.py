"""Every notebook's code, run from top to bottom on the tiny embedded set."""

import json
from pathlib import Path

import pytest

from tests.conftest import CONFIGS

NOTEBOOKS = sorted((CONFIGS.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_notebook(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    exec(compile(code, str(notebook), "exec"), {})
