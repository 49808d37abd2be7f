"""What the parser says, in words of this field, and what Lightning has against what the user chose."""

import os
from pathlib import Path

import pytest
from lightning.pytorch import loggers

from bdclean.benchmark import local
from bdclean.cli.flags import flag
from bdclean.cli.main import main
from bdclean.cli.messages import readable
from bdclean.errors import naming
from tests.conftest import CONFIGS, QUICK

UNION = "Does not validate against any of the Union subtypes Subtypes: [{types}] Errors: {errors} "
SAID = {
    "the following arguments are required: benchmark.suspects, benchmark.methods": "--suspects and --methods: required",
    "unrecognized arguments: --data.atack BadNets": "--data.atack: no such option; did you mean --data.attack?",
    "unrecognized arguments: extra": "extra: not expected here",
    "Subcommand 'fit' does not accept option 'data.atack'": "--data.atack: no such option; did you mean --data.attack?",
    "argument --ckpt: expected one argument": "--ckpt: needs a value",
    "--method.help: Expected a dot import path string: No": "--method.help No: no such class; there are CLP, Distill",
    "Parser key \"config\": File does not exist: '/x/nowhere.yaml'": "--config /x/nowhere.yaml: no such file",
    "Parser key \"model.lr\": Expected a <class 'float'>. Got value: abc": (
        "--model.lr abc: no such value; expected a number"
    ),
    'Parser key "trainer.max_epochs": '
    + UNION.format(
        types="<class 'int'>, <class 'NoneType'>", errors="- Expected a <class 'int'> - Expected a <class 'NoneType'>"
    )
    + "Given value type: <class 'str'> Given value: abc": (
        "--trainer.max_epochs abc: no such value; expected a whole number or null"
    ),
    'Parser key "data.attack": '
    + UNION.format(types="x", errors="- Problem with given class_path 'bdclean.attacks.BadNets': ")
    + 'Parser key "position": '
    + UNION.format(
        types="typing.Literal['top-left', 'center'], tuple[int, int]",
        errors="- Expected a typing.Literal['top-left', 'center'] - Expected a <class 'tuple'>",
    )
    + "Given value type: <class 'str'> Given value: top_left - Expected a <class 'NoneType'> Given value type: x": (
        "--data.attack.position top_left: no such value; did you mean top-left? Expected top-left, center "
        "or 2 numbers, [a, b]"
    ),
    'Parser key "detector": - Expected an instantiatable class, but bdclean.scanning.Detector is abstract - Expected a '
    "<class 'NoneType'> Given value: NestedArg(key='steps', val='x')": (
        "--detector.steps: needs a class, --detector NAME"
    ),
    "Parser key \"method\": Type x expects a function: No module named 'my'. Got value: my.Thing": (
        "--method: there is no module my"
    ),
    "something that is new": "something that is new",
}


@pytest.mark.parametrize("text", SAID)
def test_messages_of_the_parser_are_said_as_a_user_would(text: str) -> None:
    with naming(flag):
        assert readable(text, "fit", {"method": ["CLP", "Distill"]}) == SAID[text]


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("value", "said"),
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
    value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("wandb", "mlflow", "comet"):
        # Whether or not they are installed here.
        module = getattr(loggers, name)
        for key in [key for key in vars(module) if key.endswith("_AVAILABLE")]:
            monkeypatch.setattr(module, key, type(vars(module)[key])(f"{'comet-ml' if name == 'comet' else name}>=999"))
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, "--trainer.logger", value])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"bdclean: error: {said}")


@pytest.mark.usefixtures("tiny_shapes")
def test_loggers_of_lightning_work_by_short_names() -> None:
    main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUICK, "--trainer.logger", "CSVLogger"])
    assert "train/loss" in next(Path("runs").rglob("metrics.csv")).read_text()
    assert list(Path("runs").rglob("*.ckpt"))


def test_a_benchmark_needs_no_server_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on Windows.
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    task = local.Task("a", Path("logs/a.log"), (), os.getpid, ())
    ended = [progress for progress in local.run([task], 1) if progress.ended is not None]
    assert [progress.failure for progress in ended] == [None]
