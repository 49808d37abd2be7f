"""Options that the user gave are found wherever they stand: words, configuration files, variables."""

from pathlib import Path

import pytest
import torch

from bdclean import InputError, load
from bdclean.cli.main import main
from bdclean.cli.user_options import UserOptions
from tests.conftest import QUIET


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["--ckpt", "a", "--ckpt=b"], "b"),
        (["--ckpt", "--quiet"], None),
        (["--ckpt", "a", "--config", "file.yaml"], "a"),
        (["--config", "file.yaml"], "of the file"),
        (["--config", "file.yaml", "--config", "later.yaml"], "of the later"),
        (["--config", "ckpt: of the text"], "of the text"),
        (["--config", "sections.yaml"], "of the section"),
    ],
)
def test_the_strongest_value_counts(words: list[str], expected: str | None) -> None:
    Path("file.yaml").write_text("ckpt: of the file")
    Path("later.yaml").write_text("ckpt: of the later")
    Path("sections.yaml").write_text("scan: {ckpt: of the section}\ntest: {ckpt: another}")
    assert UserOptions(words, "scan").get("ckpt") == expected


def test_variables_are_the_weakest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDCLEAN_SCAN__DATA__ATTACK", "BadNets")
    assert UserOptions([], "scan").get("data.attack") == "BadNets"
    assert UserOptions([], "test").get("data.attack") is None
    assert UserOptions(["--config", "data: {attack: WaNet}"], "scan").get("data.attack") == "WaNet"


def test_options_of_a_group_are_found_in_its_mapping() -> None:
    words = ["--model", "{image_size: 16}", "--config", "data: {attack: {class_path: WaNet, init_args: {s: 1.0}}}"]
    user = UserOptions(words, "scan")
    assert user.get("model.image_size") == 16
    assert user.get("model.arch") is None
    assert user.get("data.attack.class_path") == "WaNet"
    assert user.get("data.attack.init_args.s") == 1.0


def test_a_file_with_an_old_name_may_name_the_checkpoint(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old.yaml").write_text(f"ckpt: {tiny_suspect}\nmethod: {{class_path: RNP, init_args: {{least: 30.0}}}}\n")
    with pytest.raises(SystemExit) as ended:
        main(["cleanse", "--config", "old.yaml", *QUIET, "--print_config"])
    assert ended.value.code == 0
    assert "arch: small_cnn" in capsys.readouterr().out


def test_a_file_does_not_decide_on_images_that_fill_the_memory(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    content["hyper_parameters"] |= {"arch": "resnet18", "stem": "small", "image_size": 800}
    torch.save(content, "large.ckpt")
    message = "large.ckpt: with images of 800 pixels, as its metadata says, a layer of resnet18 has"
    with pytest.raises(InputError, match=message):
        load("large.ckpt")
    with pytest.raises(SystemExit) as ended:
        main(["scan", "--ckpt", "large.ckpt", *QUIET])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
