"""A command that fails, or is interrupted early, leaves no files in the current folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bdclean import InputError
from bdclean.cli.main import main
from bdclean.data.sources import open_source, torchvision
from bdclean.modules import AttackModule
from bdclean.traces import removed_if_empty
from tests.conftest import CONFIGS, QUICK, QUIET

FIT = ["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUICK]


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def ended(words: list[str]) -> int:
    """The exit code of a command, which must leave no files behind."""
    before = files()
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert files() == before
    assert isinstance(caught.value.code, int)
    return caught.value.code


def arrays(name: str, classes: int, value: float = 0.5) -> str:
    images = {f"x_{part}": np.full((80, 32, 32, 3), value, np.float32) for part in ("train", "test")}
    np.savez(name, **images, **{f"y_{part}": np.arange(80) % classes for part in ("train", "test")})
    return name


LOGGERS = {"TensorBoard": [], "CSV": ["--trainer.logger", "CSVLogger"]}


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("logger", LOGGERS)
def test_an_error_after_the_logger_has_opened_leaves_no_folder(logger: str, tiny_suspect: Path) -> None:
    ckpt = ["--ckpt", str(tiny_suspect), *QUIET, *LOGGERS[logger]]
    assert ended(["test", *ckpt, "--data.attack.trigger", "nofile.png"]) == 2
    assert ended(["test", *ckpt, "--data.source", arrays("four.npz", 4)]) == 2
    assert ended(["cleanse", *ckpt, "--method", "CLP", "--trainer.max_epochs", "3"]) == 2
    assert ended([*FIT, *LOGGERS[logger], "--data.attack.poison_rate", "0.00001"]) == 2
    assert ended([*FIT, *LOGGERS[logger], "--data.source", arrays("nan.npz", 10, float("nan"))]) == 2


@pytest.mark.usefixtures("tiny_shapes")
def test_a_method_that_needs_batch_norms_leaves_no_folder_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    Path("own.py").write_text(
        "import torch\n\n\ndef make(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, num_classes))\n"
    )
    torch.save(network.state_dict(), "plain.pt")
    model = ["--model.arch", "own.make", "--model.image_size", "32", "--model.mean", "none"]
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    assert ended(["cleanse", "--ckpt", "plain.pt", *model, *QUIET, "--method", "BNP"]) == 2


@pytest.mark.usefixtures("tiny_shapes")
def test_a_training_that_diverges_in_its_first_epoch_leaves_no_folder() -> None:
    assert ended([*FIT, "--model.lr", "1e30"]) == 2


@pytest.mark.usefixtures("tiny_shapes")
def test_an_interruption_in_the_first_epoch_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AttackModule, "training_step", interrupt)
    assert ended(FIT) == 130


@pytest.mark.usefixtures("tiny_shapes")
def test_logs_of_a_completed_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: AttackModule, *given: Any) -> Any:
        if self.trainer.current_epoch:
            raise InputError("data.flip", True, "now of all times")
        return whole(self, *given)

    whole = AttackModule.training_step
    monkeypatch.setattr(AttackModule, "training_step", step)
    with pytest.raises(SystemExit):
        main([*FIT, "--trainer.max_epochs", "2"])
    assert list(Path("runs/fit/version_0").glob("events*"))
    assert Path("runs/fit/version_0/config.yaml").exists()


@pytest.mark.usefixtures("tiny_shapes")
def test_the_logs_of_earlier_commands_are_kept(tiny_suspect: Path) -> None:
    main(["test", "--ckpt", str(tiny_suspect), *QUIET])
    assert Path("runs/test/version_0").is_dir()
    assert ended(["test", "--ckpt", str(tiny_suspect), *QUIET, "--data.attack.trigger", "nofile.png"]) == 2
    # Also if the user names the folder.
    before, version = files(), ["--trainer.logger.version", "0"]
    with pytest.raises(SystemExit):
        main(["test", "--ckpt", str(tiny_suspect), *QUIET, "--data.attack.trigger", "no.png", *version])
    assert before <= files()


@pytest.mark.usefixtures("tiny_shapes")
def test_a_scan_which_logs_nothing_makes_no_folder(tiny_suspect: Path) -> None:
    quick = ["--detector", "MaximumMargin", "--detector.starts", "1", "--detector.steps", "1"]
    main(["scan", "--ckpt", str(tiny_suspect), *QUIET, *quick])
    assert files() == {"scan.json", "scan.html"}


def test_a_download_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            Path(root, "MNIST", "raw").mkdir(parents=True, exist_ok=True)
            raise RuntimeError("no network")

    monkeypatch.setattr(torchvision, "NAMES", {"mnist": torchvision.Known(Unreachable, 10, 32, "MNIST/raw/")})
    Path("kept").mkdir()
    for root in ("data", "deep/er", "kept"):
        with pytest.raises(InputError, match="source mnist: not in .*no network"):
            open_source("mnist", root).download()
    assert not any(Path(path).is_file() for path in files())
    assert {"kept"} <= files() <= {"kept", "kept/MNIST", "kept/MNIST/raw"}
    Path("file").touch()
    with pytest.raises(InputError, match=r"root file: cannot be written \(File exists\)"):
        open_source("mnist", "file").download()


def test_a_folder_is_removed_if_nothing_in_it_is_worth_keeping() -> None:
    with removed_if_empty(Path("a/b")):
        Path("a/b/c").mkdir()
    assert files() == set()
    with removed_if_empty(Path("a/b")):
        Path("a/b/file").touch()
    assert files() == {"a", "a/b", "a/b/file"}
    for keep, left in ((False, set[str]()), (True, {"a/new", "a/new/file"})):
        with pytest.raises(ZeroDivisionError):
            fail_in("a/new", keep)
        assert files() == {"a", "a/b", "a/b/file", *left}
    with pytest.raises(ZeroDivisionError):
        fail_in("a/b", False)
    assert "a/b/file" in files()


def test_an_empty_folder_of_another_command_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with removed_if_empty(Path("runs/version_0"), lambda error: False):
        Path("runs/version_1").mkdir()
    assert files() == {"runs", "runs/version_1"}
    # Another command makes the folder between our check and our own attempt.
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(ZeroDivisionError):
        fail_in("runs/version_1", False)
    assert "runs/version_1/file" in files()


def fail_in(folder: str, keep: bool) -> None:
    with removed_if_empty(Path(folder), lambda error: keep):
        Path(folder, "file").touch()
        raise ZeroDivisionError
