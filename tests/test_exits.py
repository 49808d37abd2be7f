"""Exit codes: one for each reason in every phase, with one line that reports the written files."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdclean import InputError, scanning
from bdclean import __main__ as start
from bdclean.benchmark import run as benchmark
from bdclean.cleansing import Distill
from bdclean.cli.main import main
from bdclean.exits import MEANINGS, Exit, refusal
from bdclean.modules import AttackModule, Classifier
from tests.conftest import CONFIGS, QUICK, QUIET, in_a_process

FIT = ["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUICK]


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def ended(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command, and its single line on standard error."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert isinstance(caught.value.code, int)
    return caught.value.code, line


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)
    assert sorted(Exit) == [0, 1, 2, 3, 130]


@pytest.mark.usefixtures("tiny_shapes")
def test_an_interrupted_scan_reports_unwritten_files(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scanning, "scan", interrupt)
    code, line = ended(["scan", "--ckpt", str(tiny_suspect), "--exit_code", "true", *QUIET], capsys)
    assert (code, line) == (130, "bdclean: interrupted: did not write scan.json, scan.html")


@pytest.mark.usefixtures("tiny_shapes")
def test_training_interrupted_in_its_second_epoch_names_the_checkpoint_of_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(self: AttackModule, *given: Any) -> Any:
        return interrupt() if self.trainer.current_epoch else whole(self, *given)

    whole = AttackModule.training_step
    monkeypatch.setattr(AttackModule, "training_step", step)
    code, line = ended([*FIT, "--trainer.max_epochs", "2"], capsys)
    last = next(Path("runs").rglob("*.ckpt"))
    assert code == 130
    assert line == f"bdclean: interrupted: did not write suspect.ckpt; the last checkpoint is {last}"


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("command", "step"), [("test", "test_step"), ("validate", "validation_step"), ("predict", "predict_step")]
)
def test_an_interrupted_evaluation_has_another_exit_code_than_a_finding(
    command: str, step: str, tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Classifier, step, interrupt)
    code, line = ended([command, "--ckpt", str(tiny_suspect), *QUIET], capsys)
    written = "did not write predictions.csv" if command == "predict" else "no result was written"
    assert (code, line) == (130, f"bdclean: interrupted: {written}")


@pytest.mark.usefixtures("tiny_shapes")
def test_an_interruption_while_writing_leaves_no_partial_file(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", interrupt)
    options = ["--method", "CLP", "--trainer.logger", "false", *QUIET]
    code, line = ended(["cleanse", "--ckpt", str(tiny_suspect), *options], capsys)
    assert (code, line) == (130, "bdclean: interrupted: did not write cleansed.ckpt, cleansed.json, cleansed.html")
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("tiny_shapes")
def test_an_interruption_after_writing_the_network_reports_it(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bdclean.reporting.html.write", interrupt)
    code, line = ended(["cleanse", "--ckpt", str(tiny_suspect), "--method", "CLP", *QUIET], capsys)
    assert code == 130
    assert line == "bdclean: interrupted: wrote cleansed.ckpt, cleansed.json; did not write cleansed.html"


def test_an_interrupted_benchmark_reports_its_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "_run_tasks", interrupt)
    words = ["benchmark", "--suspects", "{a: {}}", "--methods", "{CLP: {}, BNP: {}}", "--folder", "bench"]
    code, line = ended(words, capsys)
    kept = "bench has 0 of 2 cells and no tables; repeat the command to resume"
    assert (code, line) == (130, f"bdclean: interrupted: {kept}")


def test_an_interruption_is_raised_in_python(monkeypatch: pytest.MonkeyPatch, tiny_shapes: None) -> None:
    from bdclean import tasks
    from bdclean.data import PoisonDataModule
    from bdclean.engine.trainer import Trainer

    monkeypatch.setattr(Distill, "training_step", interrupt)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 1}
    with pytest.raises(KeyboardInterrupt):
        tasks.cleanse(Trainer(**options), AttackModule("small_cnn"), PoisonDataModule("shapes"), Distill)


class Broken:
    """An import hook that fails to import the command line's module."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "bdclean.cli.main":
            raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImportError("cannot allocate memory"), 3),
        (MemoryError(), 3),
        (OSError(errno.ENOMEM, "no memory"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_during_the_import_of_torch_is_not_a_finding(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("suspect.ckpt").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["bdclean", "scan", "--ckpt", "suspect.ckpt", "--exit_code", "true"])
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "bdclean.cli.main")
    monkeypatch.setattr(start, "leave", sys.exit)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            start.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("bdclean: interrupted" if code == 130 else f"bdclean: fault: {type(error).__name__}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot be seen how far a start is")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_during_start_up_end_in_one_line(sent: signal.Signals) -> None:
    Path("suspect.ckpt").write_bytes(b"")
    process = subprocess.Popen(
        [sys.executable, "-m", "bdclean", "scan", "--ckpt", "suspect.ckpt"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes background processes, such as these tests, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # The import of torch, the last step of a start-up, has begun; it takes a second or more.
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "bdclean: interrupted: no result was written\n")


def test_a_full_disk_is_a_user_error(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_shapes: None
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    words = ["cleanse", "--ckpt", str(tiny_suspect), "--method", "CLP", "--trainer.logger", "false", *QUIET]
    assert ended(words, capsys) == (2, "bdclean: error: cleansed.ckpt: No space left on device")
    assert not list(Path.cwd().iterdir())


def test_a_thread_on_a_full_disk_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> None:
        raise error

    monkeypatch.setattr(threading, "excepthook", start.report_thread)
    for error, printed in ((OSError(errno.ENOSPC, "full"), False), (ValueError("why"), True)):
        thread = threading.Thread(target=fail, args=(error,))
        thread.start()
        thread.join()
        assert ("Traceback" in capsys.readouterr().err) is printed


def test_notices_about_images_are_not_on_standard_error(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((20, 32, 32, 3), np.uint8)
    np.savez("from_1.npz", x_test=images, y_test=np.arange(20) % 9 + 1, x_train=images, y_train=np.arange(20) % 9 + 1)
    words = [
        "test",
        "--ckpt",
        str(tiny_suspect),
        *QUIET,
        "--data.source",
        "from_1.npz",
        "--data.attack.trigger",
        "no.png",
    ]
    with pytest.raises(SystemExit):
        main(words)
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == 1
    assert "the labels go from 1 to 9, and none is 0" in output.out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_worker_ends_with_the_process_that_started_it() -> None:
    child = "import time; from bdclean.__main__ import end_with_parent as end; end(); print('ready', flush=True); "
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child + 'time.sleep(60)'!r}])"
    environment = os.environ | {"LOCAL_RANK": "1"}
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    # The worker has the other end of the pipe, which closes when the worker exits.
    assert process.communicate(timeout=10)[0] == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_an_input_error_in_a_forked_process_is_one_line() -> None:
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]
    done = in_a_process(*FIT, *several, "--data.attack.poison_rate", "0.00001")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last == "bdclean: error: --data.attack.poison_rate 1e-05: poisons none of 340 images"
    assert not list(Path.cwd().iterdir())


def test_an_input_error_is_found_in_the_traceback_of_another_process() -> None:
    text = "-- Process 0 terminated with the following error:\nTraceback (most recent call last):\n"
    assert str(refusal(RuntimeError(f"{text}bdclean.errors.InputError: --data.seed x: why\n"))) == "--data.seed x: why"
    error = InputError("data.seed", "x", "why")
    assert refusal(error) is error
    assert refusal(RuntimeError(f"{text}ValueError: why\n")) is None
