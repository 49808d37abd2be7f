"""Each script in benchmarks/ runs on tiny inputs, and prints its result."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from bdclean.cli.main import main

HERE = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    # Reload the modules, as some keep options in global variables.
    for name in [path.stem for path in HERE.glob("*.py")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


def run(script: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The output of a script."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words.split()])
    capsys.readouterr()
    importlib.import_module(script).main()
    return capsys.readouterr().out


def drawn(count: int) -> str:
    """A file with images of ten classes."""
    generator = np.random.default_rng(0)
    parts = {f"x_{part}": generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for part in ("train", "test")}
    np.savez("images.npz", **parts, **{f"y_{part}": np.arange(count) % 10 for part in ("train", "test")})
    return "images.npz"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes in /proc")
def test_decoding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--images 40 --side 32 --image_size 32 --arch small_cnn --num_workers 0"
    assert "bounds training" in run("decoding", small, monkeypatch, capsys)


@pytest.mark.usefixtures("tiny_shapes")
def test_learning_rates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = f"--source {drawn(1200)} --num_unlabeled 40 --epochs 1 --fit_epochs 1 --methods FineTune"
    assert run("learning_rates", small, monkeypatch, capsys).count("| * |") == 1


@pytest.mark.usefixtures("tiny_shapes")
def test_reactivation(tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # The script replaces the command line's Trainer.
    monkeypatch.setattr("bdclean.cli.main.Verbs", importlib.import_module("bdclean.cli.main").Verbs)
    run("reactivation", f"{tiny_suspect} --counts 5 -- --trainer.accelerator=cpu", monkeypatch, capsys)
    with open("reactivation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["images"] for row in rows} >= {"5"}
    assert all(0 <= float(row["asr"]) <= 100 for row in rows)


@pytest.mark.usefixtures("tiny_shapes")
def test_scans(tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"--results scans.csv --detector MaximumMargin --detector.steps 1 --detector.starts 1 -- {tiny_suspect}"
    for _ in range(2):
        assert "BadNets" in run("scan", words, monkeypatch, capsys)
    # Scanned checkpoints are not scanned again.
    assert len(Path("scans.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_throughput(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--archs small_cnn --seconds 0.05 --rounds 1 --workers 1 --commands"
    assert "small_cnn" in run("throughput", small, monkeypatch, capsys)


def test_universal_triggers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("universal_trigger", f"{drawn(200)} --images 100 --epochs 1", monkeypatch, capsys)
    assert text.count("25.5 grey levels") == 8


def test_ablations(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(Path.cwd() / "runs")
    monkeypatch.chdir(HERE.parent)
    main(["benchmark", "--config", "benchmarks/ablation.yaml", "--folder", folder, "--list"])
    assert "without the scan" in capsys.readouterr().out
    ablation = importlib.import_module("ablation")
    assert all(hasattr(ablation, name) for name in ("Untargeted", "FoundInSuspect", "FoundInStudent", "AsTrained"))


@pytest.mark.slow
def test_stamping(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "| WaNet" in run("stamping", "--repeats 1 --archs small_cnn", monkeypatch, capsys)


@pytest.mark.slow
def test_scaling(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = "--processes 2 --arch small_cnn --images 500 --rounds 1"
    assert run("scaling", words, monkeypatch, capsys).count("\n|") == 3


@pytest.mark.slow
def test_whole_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--archs", "--commands", "small_cnn", "--options", "--trainer.max_epochs=1"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *options])
    importlib.import_module("throughput").main()
    assert "cleanse" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="measures the memory of a process as on Unix")
def test_large(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = "--options --data.num_unlabeled 40 --trainer.accelerator cpu --detector WarpInversion"
    small = f"--archs small_cnn --classes 10 --image_size 32 --commands scan {few}"
    row = run("large", small, monkeypatch, capsys).splitlines()[-1].split(" | ")
    assert row[:3] == ["| small_cnn", "10", "`scan`"]
    assert float(row[3]) > float(row[4]) > 0
    assert int(row[5]) > 100


def test_compiled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # Compiling takes a minute.
    monkeypatch.setattr(importlib.import_module("compiled"), "MODES", {"eager": None, "again": None})
    small = "--archs small_cnn --commands fit --seconds 0.01 --rounds 1"
    monkeypatch.setattr(sys, "argv", ["compiled.py", *small.split()])
    sys.modules["compiled"].main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[2:4][0] for row in rows] == ["eager", "again"]
    assert rows[0].split(" | ")[3] == "1.00"


def test_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = importlib.import_module("gpu")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--folder", "gpu"])
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        script.main()
    assert not Path("gpu").exists()
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(script.torch.cuda, "get_device_name", lambda: "GPU")
    commands = {"works": ["-c", "print('| a |')"], "fails": ["-c", "print('half'); raise SystemExit(3)"]}
    monkeypatch.setattr(script, "steps", lambda _: commands)
    script.main()
    assert Path("gpu/works.md").read_text() == "| a |\n"
    assert not Path("gpu/fails.md").exists()
    assert "half" in Path("gpu/fails.log").read_text()
    assert "| a |" in Path("gpu/index.md").read_text()
    script.main()
    out = capsys.readouterr().out
    assert out.count("works: done before") == 1
    assert out.count("fails: failed with exit code 3") == 2


def test_steps_of_gpu_name_files_that_exist(tmp_path: Path) -> None:
    for words in importlib.import_module("gpu").steps(tmp_path).values():
        files = [Path(word) for word in words if word.endswith((".py", ".yaml"))]
        assert files
        assert all(path.is_file() for path in files)
