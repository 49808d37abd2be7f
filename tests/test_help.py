"""The help of commands and classes reads as a page, without torch; old names still work."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bdclean.checkpoint.claims import with_new_names
from bdclean.cleansing import DistillCleanseModule
from bdclean.cli import help
from bdclean.cli.classes import CLASSES
from bdclean.cli.main import main
from bdclean.cli.options import SUBCOMMANDS, options
from bdclean.cli.renamed import OPTIONS, announced, current
from bdclean.source import PACKAGE
from tests.conftest import CONFIGS, QUICK, computing

NAMED = [(option, name) for option in ("data.attack", "method", "detector") for name in CLASSES[option]]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_a_command_shows_its_own_options_first(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, command, "--help").splitlines()
    assert lines[0].startswith(f"usage: bdclean {command}")
    assert len(lines) < 240
    assert max(map(len, lines)) <= 100
    if command not in ("fit", "poison", "benchmark"):
        assert next(place for place, line in enumerate(lines) if line.startswith("  --ckpt")) < 12


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_the_help_lists_options_that_exist(command: str) -> None:
    listed = set(re.findall(r"^  --([\w.]+)", help.of_command(command), re.MULTILINE))
    assert listed <= options(command).names
    own = {name for name in options(command).names if "." not in name and name not in ("model", "data", "trainer")}
    # Listed by --help-all, or only for processes that the program starts itself.
    hidden = {"help", "help-all", "cell", "command", "datamodule", "verbose", "weights_only"}
    hidden |= {"dataloaders", "train_dataloaders", "val_dataloaders"}
    hidden |= {"ckpt_path", "return_predictions"} if command != "fit" else set()
    assert own - hidden <= listed


def test_the_help_of_cleansing_lists_methods_and_no_internal_bases(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "cleanse", "--help")
    listed = set(re.findall(r"^  (\w+)", page.partition("methods (")[2], re.MULTILINE))
    assert listed == set(CLASSES["method"])
    assert "--trainer.detect_anomaly" not in page


def test_help_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "scan", "--help")
    for words in (["scan", "--ckpt", "x.pth", "-h"], ["scan", "--help", "--exit_code", "true"], ["help", "scan"]):
        assert printed(capsys, *words) == page


def test_help_all_lists_all_options(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "cleanse", "--help-all")
    assert "--trainer.detect_anomaly" in page
    assert "BDCLEAN_CLEANSE__OUTPUT" in page


def test_help_is_instant() -> None:
    code = "import sys; from bdclean.__main__ import run; run(); print('torch' in sys.modules)"
    for words in (["cleanse", "--help"], ["cleanse", "--method.help", "FST"], ["fit", "--data.attack.help=WaNet"]):
        with computing(1):
            done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("False\n")


def test_help_may_be_cut_off() -> None:
    words = [sys.executable, "-m", "bdclean", "cleanse", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # The pipe is closed before the program writes to it.
        process.stdout.close()
        output = process.stderr.read()
    assert (process.returncode, output) == (0, b"")


@pytest.mark.parametrize(("option", "name"), NAMED)
def test_the_help_of_a_class_stands_by_itself(option: str, name: str) -> None:
    page = help.of_class(option, name)
    assert page is not None
    assert page.splitlines()[0] == f"--{option} {name}"
    listed = dict(help.inherited(help.GROUPS[option].folder, name, ""))
    for text in listed.values():
        assert not re.match(r"(As in |Of (SGD|Adam)|In \w+ing\.|Their |Its )", text)
        assert len(text) > 15


@pytest.mark.parametrize(("option", "name"), NAMED)
def test_every_option_of_a_class_is_in_its_help(option: str, name: str) -> None:
    folder = help.GROUPS[option].folder
    # Arguments of internal base classes are options too.
    page = help.of_class(option, name) or ""
    node = help.classes(folder)[name]
    made = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    for argument in made.args.args[1:] if made else []:
        assert argument.arg == "suspect" or f"--{option}.{argument.arg}" in page


def test_the_short_name_of_the_papers_method_works(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "BCU: re-initialises" in printed(capsys, "cleanse", "--method.help", "BCU")
    words = printed(capsys, "cleanse", "--ckpt", str(tiny_suspect), "--method", "BCU", "--print_config")
    assert yaml.safe_load(words)["method"]["class_path"].endswith(DistillCleanseModule.__name__)


def test_old_names_of_options_become_new_ones_and_are_announced() -> None:
    words = ["cleanse", "--method", "RNP", "--method.least", "30", "--method.first=.4"]
    found, notices = current(words)
    assert found == ["cleanse", "--method", "RNP", "--method.stop_accuracy", "30", "--method.first_phase_fraction=.4"]
    assert notices == [
        "--method.least is deprecated: use --method.stop_accuracy",
        "--method.first is deprecated: use --method.first_phase_fraction",
    ]
    assert current(found) == (found, [])


def test_old_names_in_a_file_become_new_ones() -> None:
    content = {"method": {"class_path": "RNP", "init_args": {"least": 30.0, "lr": 0.1}}, "scan": False}
    Path("old.yaml").write_text(yaml.safe_dump(content))
    found, notices = current(["cleanse", "--config", "old.yaml"])
    assert yaml.safe_load(found[2])["method"]["init_args"] == {"stop_accuracy": 30.0, "lr": 0.1}
    assert len(notices) == 1
    Path("new.yaml").write_text("method: FST\n")
    assert current(["cleanse", "-c", "new.yaml"]) == (["cleanse", "-c", "new.yaml"], [])


def configured(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, list[str]]:
    """The options of a method as a command would use them, and the lines on standard error."""
    with pytest.raises(SystemExit):
        main(["cleanse", *words, "--print_config"])
    out, err = capsys.readouterr()
    return yaml.safe_load(out)["method"]["init_args"], err.splitlines()


def test_old_names_in_environment_variables_become_new_ones(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BDCLEAN_CLEANSE__METHOD__LEAST", "30")
    monkeypatch.setenv("BDCLEAN_CLEANSE__METHOD__INIT_ARGS__FIRST", "0.4")
    words = ("--ckpt", str(tiny_suspect), "--method", "RNP")
    options, lines = configured(capsys, *words)
    assert (options["stop_accuracy"], options["first_phase_fraction"]) == (30, 0.4)
    deprecated = "bdclean: BDCLEAN_CLEANSE__METHOD__LEAST is deprecated: use BDCLEAN_CLEANSE__METHOD__STOP_ACCURACY"
    assert deprecated in lines
    assert len(lines) == 2
    # The command line comes first.
    options, _ = configured(capsys, *words, "--method.stop_accuracy", "50")
    assert options["stop_accuracy"] == 50


def test_options_of_classes_in_environment_variables(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BDCLEAN_CLEANSE__CKPT", str(tiny_suspect))
    monkeypatch.setenv("BDCLEAN_CLEANSE__METHOD", "BCU")
    monkeypatch.setenv("BDCLEAN_CLEANSE__METHOD__LR", "0.5")
    # Options of other commands do not matter.
    monkeypatch.setenv("BDCLEAN_FIT__DATA__ATTACK__SILENT_SHARE", "0.5")
    options, lines = configured(capsys)
    assert options["lr"] == 0.5
    assert not lines
    assert announced(["cleanse", "--method.lr=0.5"]) == ["cleanse", "--method.lr=0.5"]
    monkeypatch.setenv("BDCLEAN_CLEANSE__METHOD__NONE", "1")
    with pytest.raises(SystemExit) as caught:
        main(["cleanse"])
    assert caught.value.code == 2
    assert "error: --method.none: no such option" in capsys.readouterr().err


def test_old_names_in_a_file_that_a_variable_names(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"method": {"class_path": "RNP", "init_args": {"least": 30.0}}}
    Path("old.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("BDCLEAN_CLEANSE__CONFIG", "old.yaml")
    options, lines = configured(capsys, "--ckpt", str(tiny_suspect))
    assert options["stop_accuracy"] == 30
    assert lines == ["bdclean: --method.init_args.least is deprecated: use --method.stop_accuracy"]


@pytest.mark.parametrize("new", OPTIONS.values())
def test_new_names_exist(new: str) -> None:
    option, _, name = new.rpartition(".")
    folder = help.GROUPS[option].folder
    assert any(f"{name}:" in path.read_text() for path in (PACKAGE / folder).rglob("*.py"))


def test_checkpoints_with_old_names_are_read() -> None:
    old = {"attack": "SCAR", "attack_options": {"silent_share": 0.5, "eps": 8.0, "kept": 0.25}}
    renamed = {"warmup_fraction": 0.5, "eps": 8.0, "kept_fraction": 0.25}
    assert with_new_names(old)["attack_options"] == renamed
    assert with_new_names({"source": "shapes"}) == {"source": "shapes"}


@pytest.mark.usefixtures("tiny_shapes")
def test_a_quiet_command_prints_only_its_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "0")
    main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUICK, "--quiet"])
    fitted = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in fitted] == ["ACC", "suspect.ckpt", "95", "All", "Wrote"]
    main(["test", "--ckpt", "suspect.ckpt", *QUICK, "--quiet"])
    tested = capsys.readouterr().out.strip().splitlines()
    # The same table, and no other.
    assert [line.split()[0] for line in tested] == ["ACC", "suspect.ckpt", "95", "All"]
    assert tested[1].split()[1:] == fitted[1].split()[1:]
    assert torch.load("suspect.ckpt", weights_only=True)
