"""Mistakes that are reported before torch is imported; everything that the parser accepts passes."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ActionParser
from lightning.pytorch.cli import LightningCLI

from bdclean import InputError, __version__, attacks, cleansing, filtering, registry, scanning
from bdclean.benchmark.work import Command
from bdclean.cli import early
from bdclean.cli.classes import CLASSES
from bdclean.cli.flags import flag
from bdclean.cli.main import check, estimate, execute, main
from bdclean.cli.options import SUBCOMMANDS, options, untrained
from bdclean.cli.parser import FUNCTIONS, CommandLine
from bdclean.cli.verbs import Verbs
from bdclean.data import PoisonDataModule
from bdclean.data.sources import KINDS
from bdclean.errors import naming
from bdclean.exits import MEANINGS
from bdclean.modules import AttackModule
from bdclean.networks.build import known_architectures
from bdclean.suggestions import suggestion
from tests.conftest import CONFIGS, computing

CONFIG = str(CONFIGS / "badnet.yaml")


@pytest.fixture(autouse=True)
def _no_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove environment variables of options, with which fewer mistakes are refused."""
    monkeypatch.delenv("BDCLEAN_CLEANSE__SCAN")


def refused(*words: str) -> str:
    with pytest.raises(InputError) as caught:
        taken(*words)
    return str(caught.value)


def taken(*words: str) -> None:
    with naming(flag):
        early.check(words)
        early.check_classes(words)


WRONG = {
    "": "no command: there are fit, poison, validate, test, predict, cleanse, scan, filter, benchmark",
    "clense --ckpt x": "clense: no such command; did you mean cleanse?",
    "frobnicate": "frobnicate: no such command; there are fit,",
    "fit --data.atack BadNets": "--data.atack: no such option; did you mean --data.attack?",
    "fit --max_epochs 3": "--max_epochs: no such option; did you mean --trainer.max_epochs?",
    "fit --max_epochs=3": "--max_epochs: no such option; did you mean --trainer.max_epochs?",
    "fit --lr 3": "--lr: no such option; did you mean --model.lr or --data.attack.lr?",
    "fit --epochs 3": "--epochs: no such option; did you mean --trainer.max_epochs or --trainer.min_epochs?",
    "fit --poison_rate 1": "--poison_rate: no such option; did you mean --data.attack.poison_rate?",
    "fit --xyzzy 1": "--xyzzy: no such option; bdclean fit --help lists them",
    "fit --trainer.loger false": "--trainer.loger: no such option; did you mean --trainer.logger?",
    "fit --ckpt a.ckpt": "--ckpt: no such option",
    "test --model.lr 3": "--model.lr: no such option",
    "fit --data.attack BadNet": "--data.attack BadNet: no such class; did you mean BadNets?",
    "fit --data.attack=badnets": "--data.attack badnets: no such class; did you mean BadNets?",
    "fit --data.attack.possition x": "--data.attack.possition: no such option; did you mean --data.attack.position?",
    "cleanse --method FinTune": "--method FinTune: no such class; did you mean FineTune?",
    "cleanse --method.init_args.ratio 1": "--method.init_args.ratio: no such option; did you mean --method.ratios?",
    "scan --detector MaximalMargin": "--detector MaximalMargin: no such class; did you mean MaximumMargin?",
    "benchmark --jbs 3": "--jbs: no such option; did you mean --jobs?",
    "--ckpt x": "no command: there are fit,",
    "--ckpt x cleanse": "--ckpt x: must come after the command cleanse",
    "fit --trainer.logger Foo": "--trainer.logger Foo: no such class; there are CometLogger, CSVLogger, MLFlowLogger,",
    "fit --trainer.logger CSVLoger": "--trainer.logger CSVLoger: no such class; did you mean CSVLogger?",
    "fit --trainer.callbacks+=EarlyStoping": "--trainer.callbacks EarlyStoping: no such class; did you mean EarlySt",
    "cleanse --method.help NoSuch": "--method.help NoSuch: no such class; there are ANP, BAN, BNP,",
    "fit --data.attack.help=BadNet": "--data.attack.help BadNet: no such class; did you mean BadNets?",
    "fit --model.arch resnet81": "--model.arch resnet81: no such network; did you mean resnet18?",
    "fit --data.source nofolder": "--data.source nofolder: neither a folder, nor an .npz, .npy or .tar file, nor one",
    "cleanse --data.unlabeled=no/where": "--data.unlabeled no/where: neither a folder, nor an .npz, .npy or .tar file",
    "fit --data.attack.position bottom_left": (
        "--data.attack.position bottom_left: no such value; did you mean bottom-left? Expected top-left, top-right, "
        "bottom-left, bottom-right, center or 2 numbers, [a, b]"
    ),
    "fit --data.attack BadNets --data.attack.init_args.size x": "--data.attack.init_args.size x: no such value;",
    "cleanse --method.supervision label": "--method.supervision label: no such value; did you mean labels? Expected te",
    "fit --data.batch_size abc": "--data.batch_size abc: no such value; expected a whole number or null",
    "fit --trainer.max_epochs ten": "--trainer.max_epochs ten: no such value; expected a whole number or null",
    "scan --alpha small": "--alpha small: no such value; expected a number",
    "benchmark --jobs many": "--jobs many: no such value; expected a whole number or null",
    "cleanse --output cleansed.h5": "--output cleansed.h5: must end with .ckpt, .pt, .pth,",
    "cleanse --output cleansed.html": "--output cleansed.html: that is the name of the report",
    "cleanse --output=": "--output '': must end with .ckpt,",
    "fit --output nowhere/a.ckpt": "--output nowhere/a.ckpt: there is no folder nowhere",
    "scan --output scan.txt": "--output scan.txt: must end with .json",
    "cleanse --ckpt=": "--ckpt '': no such file",
    "cleanse --ckpt nowhere.pth": "--ckpt nowhere.pth: no such file",
    "cleanse --ckpt=nowhere.pth": "--ckpt nowhere.pth: no such file",
    "fit --config nowhere.yaml": "--config nowhere.yaml: no such file",
    "fit -c nowhere.yaml": "--config nowhere.yaml: no such file",
    "fit --ckpt_path nowhere.ckpt": "--ckpt_path nowhere.ckpt: no such file",
    "fit --trainer.max_epochs 0": "--trainer.max_epochs 0: no training step, so the network would stay untrai",
    "fit --trainer.max_time 00:00:00:00": "--trainer.max_time 00:00:00:00: no training step, so",
    "cleanse --trainer.max_epochs=0": "--trainer.max_epochs 0: no training step, but ScanDistill trains",
    "cleanse --method FineTune --trainer.max_steps 0": "--trainer.max_steps 0: no training step, but FineTune trai",
    "cleanse --trainer.limit_train_batches 0.0": "--trainer.limit_train_batches 0.0: no training step, but ScanD",
}


@pytest.mark.parametrize("command", WRONG)
def test_mistakes_are_named(command: str) -> None:
    assert refused(*command.split()).startswith(WRONG[command])


@pytest.mark.parametrize(
    "command",
    [
        "clense",
        "fit --data.atack BadNets",
        "cleanse --ckpt nowhere.pth",
        "fit --model.arch resnet81",
        "fit --trainer.logger Foo",
        "cleanse --method.help NoSuch",
        "--help",
        "",
    ],
)
def test_help_and_errors_take_a_second_without_torch(command: str) -> None:
    code = "import sys; from bdclean.__main__ import run\ntry: run()\nfinally: print('torch' in sys.modules)"
    words = [sys.executable, "-c", code, *command.split()]
    with computing(1):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if command == "--help" else 2)
    assert done.stdout.endswith("False\n")
    assert len(done.stderr.splitlines()) == (0 if command == "--help" else 1)


def test_the_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"], ["help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in SUBCOMMANDS)
        assert all(f"{code:>5}  {meaning}" in text for code, meaning in MEANINGS.items())


@pytest.mark.parametrize("word", ["--version", "-v", "-V", "version"])
def test_the_version_is_printed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([word])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_names_in_the_source_match_the_imported_ones() -> None:
    assert list(registry.networks()) == known_architectures()
    lists = (getattr(sys.modules[kind.__module__], "NAMES", ()) for kind in KINDS)
    assert set(registry.image_sets()) == {name for names in lists for name in names}
    for name in ("data.attack", "trainer.logger", "trainer.callbacks"):
        assert list(options("fit").classes[name].usual) == CLASSES[name]
    assert list(options("cleanse").classes["method"].usual) == CLASSES["method"]
    assert set(options("scan").classes["detector"].usual) == set(CLASSES["detector"])
    assert set(options("filter").classes["score"].usual) == set(CLASSES["score"])


def test_known_sources_folders_and_files_pass() -> None:
    Path("images").mkdir()
    Path("arrays.npz").touch()
    Path("text.txt").touch()
    for name in ("images", "arrays.npz", "cifar10", "shapes", "procedural", "."):
        taken("fit", "--data.source", name)
    assert "text.txt: neither a folder" in refused("fit", "--data.source", "text.txt")
    message = refused("fit", "--data.source", "cifar1")
    assert message.endswith("; did you mean cifar10?")


def test_the_commands_are_those_of_the_parser() -> None:
    assert {*CommandLine.subcommands(), *FUNCTIONS} == {*SUBCOMMANDS}


@pytest.fixture(scope="module")
def parsers() -> dict[str, Any]:
    """The full parser of every subcommand."""

    class StopError(Exception):
        pass

    class Parsers(CommandLine):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            found.update(self._subcommand_parsers)
            raise StopError

    found: dict[str, Any] = {}
    assert issubclass(Parsers, LightningCLI)
    command = Command(execute, check, estimate)
    options = {"trainer_class": Verbs, "auto_configure_optimizers": False, "args": [], "command": command}
    with pytest.raises(StopError):
        Parsers(AttackModule, PoisonDataModule, **options)
    return found


def accepted(parser: Any) -> Iterator[str]:
    """Every option of a parser, with dashes."""
    for action in parser._actions:
        yield from action.option_strings
        assert not isinstance(action, ActionParser)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_option_of_the_parser_passes(name: str, parsers: dict[str, Any]) -> None:
    found = [option for option in accepted(parsers[name]) if option.startswith("--")]
    assert len(found) > 10
    for option in set(found) - {"--output"}:
        taken(name, option, "{}")
        taken(name, f"{option}={{}}")
        if not option.endswith(".help"):
            taken(name, f"{option}+", "{}")


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_few_other_options_pass(name: str, parsers: dict[str, Any]) -> None:
    known = {option.lstrip("-") for option in accepted(parsers[name])}
    assert {option for option in options(name).names - known if "." in option} <= {
        # Options of Lightning that ours replace, and options that are linked to others.
        *(f"model.{option}" for option in ("num_classes", "image_size")),
    }


@pytest.mark.parametrize("option", ["data.attack", "method", "detector", "score"])
def test_every_class_and_each_of_its_arguments_passes(option: str) -> None:
    command = {"data.attack": "fit", "method": "cleanse", "detector": "scan", "score": "filter"}[option]
    for name in CLASSES[option]:
        kind = next(
            getattr(module, name) for module in (attacks, cleansing, scanning, filtering) if hasattr(module, name)
        )
        taken(command, f"--{option}", name)
        taken(command, f"--{option}.class_path={kind.__module__}.{name}")
        arguments = inspect.signature(kind).parameters.values()
        for argument in (one.name for one in arguments if one.kind != one.VAR_KEYWORD):
            taken(command, f"--{option}", name, f"--{option}.{argument}", "1")
            taken(command, f"--{option}={name}", f"--{option}.init_args.{argument}=1")


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "x.yaml", "fit", "--nonsense"],
        ["fit", "--nonsense", "--help"],
        ["fit", "--data.attack.help", "my.module.Mine"],
        ["fit", "--data.attack.help"],
        ["fit", "--config", CONFIG, "--data.attack.help", "Mine"],
        ["fit", "--output", "--a b"],
        ["fit", "--output", "a b --nonsense.ckpt"],
        ["fit", "--output=x.ckpt", "--data.source", "null", "--data.unlabeled", "~"],
        ["fit", "--data.source", "'quoted'", "--model.arch", "my.module.Net"],
        ["fit", "--model.arch", "timm/whatever", "--model.mean", "cifar10", "--trainer.devices", "auto"],
        ["fit", "--model.lr", "nan", "--model.lr", "1e-3", "--data.flip", "no", "--data.batch_size", "null"],
        ["fit", "--data.attack.position", "[1,2]", "--data.attack.trigger", "mine.png"],
        ["fit", "--trainer.logger", "[CSVLogger, WandbLogger]", "--trainer.logger.version", "x"],
        ["fit", "--trainer.logger", "false", "--trainer.callbacks", "my.module.Mine"],
        ["fit", "--trainer.precision", "bf16-mixed", "--trainer.max_time", "00:01:00:00"],
        ["--config", "x.yaml"],
        ["fit", "--config", "{data: {seed: 1}}"],
        ["fit", "--config={}"],
        ["fit", "--config", CONFIG, "--data.attack", "Mine"],
        ["fit", "--data.attack", "my.module.Mine", "--data.attack.own", "3"],
        ["fit", "--data.attack", "null"],
        ["fit", "--data", "{attack: {class_path: my.Mine}}", "--data.attack.own", "3"],
        ["fit", "--data.attack", "{class_path: my.Mine}", "--data.attack.own", "3"],
        ["fit", "--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "x"],
        ["fit", "--trainer.callbacks+=EarlyStopping"],
        ["fit", "--ckpt_path", "null"],
        ["fit", "--print_config", "--seed_everything=3"],
        ["fit", "--data.attack.dict_kwargs.x", "3"],
        ["cleanse", "--ckpt", "nowhere.pth", "--ckpt", CONFIG],
        ["cleanse", "--method", "CLP", "--trainer.max_epochs", "0"],
        ["cleanse", "--method", "my.Mine", "--trainer.max_epochs", "0"],
        ["cleanse", "--config", CONFIG, "--trainer.max_epochs", "0"],
        ["fit", "--trainer.max_epochs", "0", "--trainer.max_epochs", "10", "--trainer.limit_train_batches", "0.5"],
        ["scan", "--trainer.max_epochs", "0"],
    ],
)
def test_doubtful_cases_pass(words: list[str]) -> None:
    taken(*words)


def test_methods_that_do_not_train_are_known() -> None:
    assert untrained() == {name for name in cleansing.__all__ if getattr(cleansing, name).epochs == 0}
    assert inspect.signature(Verbs.cleanse).parameters["method"].default.__name__ == early.DEFAULT_METHOD


def test_with_environment_variables_any_class_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["cleanse", "--method.own", "3"]
    assert "no such option" in refused(*words)
    monkeypatch.setenv("BDCLEAN_CLEANSE__METHOD", "my.module.Mine")
    taken(*words)
    taken()


def test_a_class_of_a_notebook_keeps_its_short_name(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class OwnDistill(cleansing.Distill):
        pass

    OwnDistill.__qualname__ = "OwnDistill"
    globals()["OwnDistill"] = OwnDistill
    with pytest.raises(SystemExit) as caught:
        main(["cleanse", "--ckpt", str(tiny_suspect), "--method", "OwnDistill", "--print_config"])
    assert caught.value.code == 0
    assert "OwnDistill" in capsys.readouterr().out


def test_suggestions_have_similar_names() -> None:
    names = ["data.seed", "data.attack.seed", "model.lr"]
    assert suggestion("data.sed", names, "--") == "; did you mean --data.seed?"
    assert suggestion("seed", names) == "; did you mean data.seed or data.attack.seed?"
    assert suggestion("data.seed", ["data.seed"]) == ""
    assert suggestion("xyzzy", names) == ""
    assert suggestion("x", []) == ""


def test_a_missing_checkpoint_is_an_error() -> None:
    for command in ("test", "cleanse", "scan", "filter"):
        with pytest.raises(InputError, match="^ckpt: required$"):
            early.check_required([command, "--data.source", "shapes"])
    for words in ("fit", "cleanse --ckpt a", "test --config a", "scan --help", "benchmark --list"):
        early.check_required(words.split())
    Path("suspect.ckpt").touch()
    assert "did you mean --ckpt suspect.ckpt?" in refused("cleanse", "suspect.ckpt")
