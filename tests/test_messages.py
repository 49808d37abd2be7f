"""Errors of the parser and of Lightning, in the program's own words."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import loggers

from bdclean.benchmark.engines import Local
from bdclean.cli.main import main
from bdclean.networks import build_network
from tests.conftest import CONFIGS, QUICK
from tests.trivial import task


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("WandbLogger", "--trainer.logger WandbLogger: needs a package that is missing: pip install -U 'wandb"),
        ("MLFlowLogger", "--trainer.logger MLFlowLogger: needs a package that is missing: pip install -U 'mlflow"),
        ("CometLogger", "--trainer.logger CometLogger: needs a package that is missing: pip install -U 'comet-ml"),
        ("[CSVLogger, WandbLogger]", "--trainer.logger WandbLogger: needs a package that is missing: pip install -U"),
        ("WandbLoger", "--trainer.logger WandbLoger: no such class; did you mean WandbLogger?"),
        ("NeptuneLogger", "--trainer.logger NeptuneLogger: no such class; there are CometLogger, CSVLogger,"),
    ],
)
def test_a_logger_without_its_package_is_one_line(
    value: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("wandb", "mlflow", "comet"):
        # Whether or not the packages are installed here.
        module = getattr(loggers, name)
        for key in [key for key in vars(module) if key.endswith("_AVAILABLE")]:
            monkeypatch.setattr(module, key, type(vars(module)[key])(f"{'comet-ml' if name == 'comet' else name}>=999"))
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, "--trainer.logger", value])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"bdclean: error: {expected}")


@pytest.mark.usefixtures("tiny_shapes")
def test_loggers_of_lightning_work_by_short_names() -> None:
    main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUICK, "--trainer.logger", "CSVLogger"])
    assert "train/loss" in next(Path("runs").rglob("metrics.csv")).read_text()
    assert list(Path("runs").rglob("*.ckpt"))


def test_a_benchmark_needs_no_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on Windows.
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    ended = [progress for progress in Local().run([task("a")], 1) if progress.ended is not None]
    assert [progress.failure for progress in ended] == [None]


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("fit extra", "extra: not expected here"),
        ("fit --trainer.max_epochs", "--trainer.max_epochs: needs a value"),
        ("scan --ckpt x.pth --detector.steps 3", "--detector.steps: needs a class, --detector NAME"),
        ("fit --data.attack no.such.Thing", "--data.attack: there is no module no"),
        ("fit --data.attack broken.Thing", "--data.attack broken.Thing: cannot be imported (SyntaxError: "),
        ("fit --data {sede:@3}", "--data.sede: no such option; did you mean --data.seed?"),
        ("fit --data.attack {class_path:@BadNets,@init_args:@{size:@x}}", "--data.attack.size x: no such value; expec"),
        ("fit --data.attack WaNet --data.attack.size 3", "--data.attack.size: no such option"),
        ("fit --trainer.callbacks EarlyStopping", "--trainer.callbacks EarlyStopping: needs --trainer.callbacks.mon"),
        (
            "fit --trainer.callbacks EarlyStopping --trainer.callbacks.monitor x --trainer.callbacks.mode foo",
            "--trainer.callbacks EarlyStopping: `mode` can be",
        ),
        ("benchmark --jobs 1", "--suspects and --methods: required"),
    ],
)
def test_refused_options_are_found(
    command: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.setenv("BDCLEAN_CLEANSE__X", "with options in variables less is refused early")
    Path("broken.py").write_text("class:\n")
    torch.save(build_network("resnet20", 10, 32).state_dict(), "x.pth")
    with pytest.raises(SystemExit) as caught:
        main([word.replace("@", " ") if word.startswith("{") else word for word in command.split()])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"bdclean: error: {expected}")


def test_options_in_variables_and_files_are_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own.yaml").write_text("fit: {model: {lr: fast}}\n")
    with pytest.raises(SystemExit):
        main(["--config", "own.yaml", "fit"])
    assert "--model.lr fast: no such value; expected a number" in capsys.readouterr().err
    monkeypatch.setenv("BDCLEAN_FIT__DATA__SEED", "x")
    with pytest.raises(SystemExit):
        main(["fit"])
    assert "--data.seed x: no such value; expected a whole number" in capsys.readouterr().err


def test_other_errors_of_the_parser_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdclean.cli.parser.diagnose", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--data.attack.position", "[a, b]"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert line.startswith("bdclean: error: ")
    assert "position" in line
