"""Every notebook's code, run from top to bottom on the tiny embedded set."""

import json
from pathlib import Path

import pytest

from tests.conftest import CONFIGS

NOTEBOOKS = sorted((CONFIGS.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_outputs_are_stored_without_errors_and_warnings(notebook: Path) -> None:
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert all(cell["execution_count"] for cell in cells)
    # A box in pink is the error stream.
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_notebook(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    if "transformers" in code:
        pytest.importorskip("transformers")
    exec(compile(code, str(notebook), "exec"), {})
