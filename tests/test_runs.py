"""Errors that end a run are one line that names the option, whichever process raises them."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import DeviceStatsMonitor
from lightning_utilities.core.imports import RequirementCache
from torch import nn

import bdclean
from bdclean.cli.main import main
from bdclean.engine.failures import of_a_run
from tests.conftest import QUICK
from tests.strangers import Pooled

INSTALL = "needs a package that is missing: pip install -U"
PARTS = {
    "--trainer.callbacks BackboneFinetuning": ": 'AttackModule' object has no attribute 'backbone'",
    "--trainer.callbacks BatchSizeFinder": ": is not supported; set --data.batch_size instead",
    "--trainer.profiler XLAProfiler": f": {INSTALL} 'torch_xla",
    "--trainer.plugins XLACheckpointIO": f": {INSTALL} 'torch_xla",
    "--trainer.plugins LSFEnvironment": ": Did not find the environment variable `LSB_DJOB_RANKFILE`",
    "--trainer.strategy deepspeed_stage_2": f": {INSTALL} deepspeed",
    "--trainer.precision transformer-engine": f": {INSTALL} 'transformer_engine",
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("option", PARTS)
def test_errors_of_parts_name_their_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, "--model.arch", "small_cnn", *option.split()])
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bdclean")]
    assert line.startswith(f"bdclean: error: {option}{PARTS[option]}")
    assert not list(Path.cwd().iterdir())


@pytest.fixture
def without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", RequirementCache("no-psutil")
    )


@pytest.mark.usefixtures("tiny_shapes", "without_psutil")
@pytest.mark.parametrize(
    "several",
    [
        [],
        pytest.param(
            ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"],
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork"),
        ),
    ],
)
def test_a_callback_without_its_package_is_named(several: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, "--model.arch", "small_cnn", "--trainer.callbacks", "DeviceStatsMonitor", *several])
    assert caught.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("bdclean: error: --trainer.callbacks DeviceStatsMonitor: needs a package that is missing")


@pytest.mark.usefixtures("without_psutil")
def test_python_gets_an_input_error() -> None:
    options: dict[str, Any] = {"epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    model: nn.Module = Pooled()
    with pytest.raises(bdclean.InputError, match="^callbacks DeviceStatsMonitor: needs a package that is missing: pip"):
        bdclean.cleanse(model, torch.rand(40, 3, 16, 16), callbacks=[DeviceStatsMonitor()], logger=True, **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "deepspeed_stage_2"}, f"strategy deepspeed_stage_2: {INSTALL}"),
        ({"precision": "transformer-engine"}, f"precision transformer-engine: {INSTALL}"),
        ({"profiler": "xla"}, f"profiler xla: {INSTALL}"),
        ({"accelerator": "tpu"}, f"accelerator tpu: {INSTALL}"),
        ({"callbacks": ["x"]}, "callbacks 'x': must be a Lightning Callback"),
        ({"callbacks": [None]}, "callbacks None: must be a Lightning Callback"),
        ({"logger": "x"}, "logger 'x': must be a Lightning Logger"),
        ({"accumulate_grad_batches": "x"}, "accumulate_grad_batches 'x': must be a number"),
        ({"log_every_n_steps": "x"}, "log_every_n_steps 'x': must be a number"),
        ({"max_time": 0}, "epochs 1 .*max_time 0: "),
    ],
)
def test_python_names_the_argument(given: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    with pytest.raises(bdclean.InputError, match=f"^{message}"):
        bdclean.cleanse(Pooled(), torch.rand(40, 3, 16, 16), **options | given)


def fails(rank: int) -> None:
    """Fail as a process whose partner raises an InputError."""
    raise bdclean.InputError("data.seed", "x", "why") if rank else RuntimeError("Connection closed by peer")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_an_input_error_is_reported_whichever_process_fails_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context = mp.start_processes(fails, nprocs=2, join=False, start_method="fork")
    assert context is not None
    for process in context.processes:
        process.join()
    with pytest.raises(mp.ProcessRaisedException, match="Connection closed by peer") as caught:
        context.join()
    assert str(of_a_run(caught.value, {})) == "seed x: why"
    assert not list(tmp_path.iterdir())


def test_other_errors_are_not_changed() -> None:
    callbacks = [DeviceStatsMonitor()]
    assert of_a_run(RuntimeError("why"), {"callbacks": callbacks}) is None
    assert of_a_run(AttributeError("why"), {"callbacks": callbacks}) is None


def test_errors_in_destructors_print_nothing() -> None:
    code = (
        "import sys\nfrom bdclean import __main__ as start\nsys.unraisablehook = start.report_unraisable\n"
        "class Half:\n    def __del__(self): self.missing\n"
        "Half()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
