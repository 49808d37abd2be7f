"""Files are written atomically, checked before the work where possible, and never replace another suspect's."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from bdclean import InputError, outputs
from bdclean.checkpoint import lightning_files, write_text, write_whole
from bdclean.cli.main import main
from tests.conftest import CONFIGS, QUICK, QUIET

WORDS = {
    "fit": ["--config", str(CONFIGS / "badnet.yaml"), *QUICK],
    "cleanse": ["--method", "CLP", *QUIET],
    "scan": ["--detector", "MaximumMargin", "--detector.starts", "1", "--detector.steps", "1", *QUIET],
    "filter": ["--score", "ScaleUp", "--score.factors", "[3]", *QUIET],
    "predict": QUIET,
}
"""Short commands that write files."""
RESULTS = {
    "fit": "suspect.ckpt",
    "cleanse": "cleansed.ckpt",
    "scan": "scan.json",
    "filter": "filter.csv",
    "predict": "predictions.csv",
}


def command(name: str, suspect: Path, *more: str) -> list[str]:
    ckpt = [] if name == "fit" else ["--ckpt", str(suspect)]
    return [name, *ckpt, *WORDS[name], "--trainer.logger", "false", "--trainer.enable_checkpointing", "false", *more]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The single line with which a command is refused; the folder must not change."""
    before = {path: path.lstat().st_mtime_ns for path in Path.cwd().rglob("*")}
    with pytest.raises(SystemExit) as caught:
        main(words)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert {path: path.lstat().st_mtime_ns for path in Path.cwd().rglob("*")} == before
    return line


def test_writing_is_atomic() -> None:
    def fail(file: Any) -> None:
        file.write(b"half")
        raise ZeroDivisionError

    path = Path("file.txt")
    write_text(path, "before")
    with pytest.raises(ZeroDivisionError):
        write_whole(path, fail)
    assert path.read_text() == "before"
    assert list(Path.cwd().iterdir()) == [path.absolute()]


def test_a_link_still_points_to_the_file() -> None:
    Path("elsewhere").mkdir()
    Path("link.txt").symlink_to("elsewhere/file.txt")
    write_text(Path("link.txt"), "text")
    assert Path("link.txt").is_symlink()
    assert Path("elsewhere/file.txt").read_text() == "text"


def test_names_that_are_not_utf_8_do_not_spoil_a_table() -> None:
    write_text(Path("table.csv"), "caf\udce9.png,0\n")
    assert Path("table.csv").read_text() == "caf\\udce9.png,0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such limit")
def test_a_limit_of_the_system_is_an_error_that_names_the_file() -> None:
    code = (
        "import errno, resource, torch; from pathlib import Path; from bdclean.checkpoint import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "tensor = {'a': torch.zeros(100_000)}\n"
        "for save in (lambda file: torch.save(tensor, file), lambda file: file.write(bytes(400_000))):\n"
        "    try:\n"
        "        write_whole(Path('a.ckpt'), save)\n"
        "    except OSError as error:\n"
        "        print(error.errno == errno.EFBIG, error.filename)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == 2 * "True a.ckpt\n"
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("name", WORDS)
def test_unwritable_files_are_refused_before_the_work(
    name: str, tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix = Path(RESULTS[name]).suffix
    Path(f"folder{suffix}").mkdir()
    os.mkfifo(f"fifo{suffix}")
    Path(f"loop{suffix}").symlink_to(f"loop{suffix}")
    expected = {
        f"nowhere/a{suffix}": "there is no folder nowhere",
        f"folder{suffix}": "is a folder",
        f"fifo{suffix}": "is not a regular file",
        f"loop{suffix}": "cannot be written",
        f"{'a' * 300}{suffix}": "cannot be written (File name too long)",
    }
    for output, reason in expected.items():
        line = refusal(command(name, tiny_suspect, "--output", output), capsys)
        assert line.startswith(f"bdclean: error: --output {output}: {reason}"), line


@pytest.mark.usefixtures("tiny_shapes")
def test_the_name_of_the_report_may_be_too_long_too(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = "a" * 251 + ".pt"
    line = refusal(command("cleanse", tiny_suspect, "--output", output), capsys)
    assert "the report" in line
    assert line.endswith("cannot be written (File name too long)")


@pytest.mark.usefixtures("tiny_shapes")
def test_a_device_stays_a_device(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(command("predict", tiny_suspect, "--output", os.devnull), capsys)
    assert line == f"bdclean: error: --output {os.devnull}: is not a regular file"
    assert not Path(os.devnull).is_file()


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("name", ["fit", "cleanse", "scan"])
def test_a_full_disk_is_refused_before_the_work(
    name: str, tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    line = refusal(command(name, tiny_suspect), capsys)
    assert "MiB, and 0.0 MiB are left on the disk" in line


def test_a_read_only_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    # Root can write to every folder.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"output a.ckpt: cannot be written there \(Read-only file system\)"):
        outputs.plan("a.ckpt")


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("name", ["fit", "cleanse", "scan"])
def test_the_same_command_can_be_repeated(name: str, tiny_suspect: Path) -> None:
    shutil.copy(tiny_suspect, "own.ckpt")
    for _ in range(2):
        main(command(name, Path("own.ckpt")))
        written = Path(RESULTS[name])
        times = written.stat().st_mtime_ns
    # Also with a new network at the same path, and from another folder.
    Path("inner").mkdir()
    os.chdir("inner")
    main(command(name, Path("../own.ckpt"), "--output", f"../{written}"))
    assert Path(f"../{written}").stat().st_mtime_ns > times


@pytest.mark.usefixtures("tiny_shapes")
def test_the_result_of_another_suspect_is_kept(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tiny_suspect, "first.ckpt")
    shutil.copy(tiny_suspect, "second.ckpt")
    for name, kind in (("cleanse", "the result of cleansing"), ("scan", "the scan of")):
        main(command(name, Path("first.ckpt")))
        line = refusal(command(name, Path("second.ckpt")), capsys)
        result = RESULTS[name]
        again = "--overwrite true replaces it"
        assert line == f"bdclean: error: --output {result}: {result} is {kind} first.ckpt; {again}"
        main(command(name, Path("second.ckpt"), "--overwrite", "true"))
        assert json.loads(Path(result).with_suffix(".json").read_text())["checkpoint"] == "second.ckpt"
    # Both have the same path relative to the current folder.
    Path("inner").mkdir()
    shutil.copy(tiny_suspect, "inner/second.ckpt")
    os.chdir("inner")
    assert "../scan.json is the scan of second.ckpt" in refusal(
        command("scan", Path("second.ckpt"), "--output", "../scan.json"), capsys
    )


@pytest.mark.usefixtures("tiny_shapes")
def test_the_report_of_another_suspect_is_kept(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tiny_suspect, "first.ckpt")
    main(command("cleanse", Path("first.ckpt"), "--output", "result.ckpt"))
    line = refusal(command("cleanse", tiny_suspect, "--output", "result.pt"), capsys)
    assert "result.json is the result of cleansing first.ckpt" in line
    line = refusal(command("scan", Path("first.ckpt"), "--output", "result.json"), capsys)
    assert "result.json is the result of cleansing first.ckpt" in line


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("name", WORDS)
def test_a_file_of_unknown_origin_is_kept(name: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = RESULTS[name]
    Path(output).write_text("mine")
    line = refusal(command(name, tiny_suspect), capsys)
    assert line.startswith(f"bdclean: error: --output {output}: {output} exists, and was not written")
    main(command(name, tiny_suspect, "--overwrite", "true"))
    assert Path(output).read_bytes() != b"mine"


@pytest.mark.usefixtures("tiny_shapes")
def test_a_network_with_another_backdoor_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    main(command("fit", Path()))
    before = torch.load("suspect.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    line = refusal(command("fit", Path(), "--data.attack.target_class", "3"), capsys)
    assert "suspect.ckpt exists, and was not written" in line
    assert torch.load("suspect.ckpt", weights_only=True)["datamodule_hyper_parameters"] == before


@pytest.mark.usefixtures("tiny_shapes")
def test_predictions_do_not_replace_the_suspect(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tiny_suspect, "own.ckpt")
    line = refusal(command("predict", Path("own.ckpt"), "--output", "own.ckpt"), capsys)
    assert "own.ckpt exists, and was not written" in line


@pytest.mark.usefixtures("tiny_shapes")
def test_checkpoints_of_a_training_are_written_atomically(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(lightning_files, "write_whole", lambda path, save: written.append(path.suffix))
    main(["fit", *WORDS["fit"]])
    # One checkpoint of the run, and the result.
    assert written == [".ckpt", ".ckpt"]
