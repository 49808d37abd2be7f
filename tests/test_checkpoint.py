import argparse
import os
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bdclean import InputError
from bdclean.checkpoint import read
from bdclean.cli.main import main

MARK = Path("executed")
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


class Bomb:
    """An object whose pickle creates a file on loading."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(MARK),)


def poisoned(**parts: Any) -> Callable[[dict[str, Any]], Any]:
    """A function that adds entries to parts of a checkpoint."""

    def change(content: dict[str, Any]) -> Any:
        for part, entries in parts.items():
            content[part] |= entries
        return content

    return change


def without(*names: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {key: value for key, value in content.items() if key not in names}


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a pickle that runs code": (
        lambda content: content | {"state_dict": Bomb()},
        "it would run code on loading: posix.mkdir",
    ),
    "a bomb beside the weights": (lambda content: content | {"extra": [Bomb()]}, "it would run code on loading"),
    "no weights": (without("state_dict"), "a damaged checkpoint of bdclean, without state_dict"),
    "no hyper-parameters": (without("hyper_parameters"), "a damaged checkpoint of bdclean, without hyper_parameters"),
    "a list": (lambda content: [content], "holds a list of 1 entries; expected a state_dict"),
    "a class to import": (poisoned(hyper_parameters={"_class_path": "subprocess.Popen"}), "holds '_class_path'"),
    "an instantiator": (poisoned(hyper_parameters={"_instantiator": "os.system"}), "holds '_instantiator'"),
    "a class as architecture": (poisoned(hyper_parameters={"arch": "os.system"}), "--model.arch os.system"),
    "a class as value": (
        poisoned(hyper_parameters={"arch": {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}}),
        "arch cannot be",
    ),
    "a class as attack": (
        poisoned(datamodule_hyper_parameters={"attack": "os.system"}),
        "attack cannot be 'os.system'",
    ),
    "an unknown attack": (poisoned(datamodule_hyper_parameters={"attack": "Popen"}), "made with the attack Popen"),
    "a base class as attack": (poisoned(datamodule_hyper_parameters={"attack": "Attack"}), "the attack Attack"),
    "an attack's unknown option": (
        poisoned(datamodule_hyper_parameters={"attack_options": {"class_path": "os.system"}}),
        "class_path",
    ),
    "an object as option": (
        poisoned(datamodule_hyper_parameters={"attack_options": {"trigger": {"class_path": "os.system"}}}),
        "attack_options cannot be",
    ),
    "a class for the network": (
        poisoned(hyper_parameters={"arch_kwargs": {"norm": [{"class_path": "subprocess.Popen"}]}}),
        "arch_kwargs cannot be",
    ),
    "endless arguments of the network": (
        poisoned(hyper_parameters={"arch_kwargs": {"widths": ENDLESS}}),
        "arch_kwargs cannot be",
    ),
    "a huge image": (poisoned(hyper_parameters={"image_size": 10**9}), "image_size cannot be 1000000000"),
    "a huge class count": (poisoned(hyper_parameters={"num_classes": 10**12}), "num_classes cannot be"),
    "another class count": (
        poisoned(hyper_parameters={"num_classes": 7}),
        "does not fit small_cnn with 7 classes: its weights are for 10",
    ),
    "another architecture": (poisoned(hyper_parameters={"arch": "resnet20"}), "does not fit resnet20"),
    "weights that are no tensors": (poisoned(state_dict={"0.weight": "tensor"}), "'0.weight', which is not a tensor"),
    "a tensor as trigger": (
        lambda content: content | {"PoisonDataModule": torch.ones(3)},
        "trigger is not a dictionary",
    ),
    "a list that holds itself": (
        poisoned(datamodule_hyper_parameters={"attack_options": {"position": ENDLESS}}),
        "attack_options cannot be",
    ),
    "one class": (poisoned(hyper_parameters={"num_classes": 1}), "num_classes cannot be 1"),
    "very many classes": (poisoned(hyper_parameters={"num_classes": 100_000}), "does not fit small_cnn"),
    "sparse weights": (
        poisoned(state_dict={"0.weight": torch.eye(3).to_sparse()}),
        "'0.weight', which is not an ordinary",
    ),
    "weights without numbers": (
        poisoned(state_dict={"0.weight": torch.empty(16, 3, 3, 3, device="meta")}),
        "'0.weight', which is not an ordinary",
    ),
    "weights that claim too much": (
        poisoned(state_dict={"0.weight": torch.zeros(1).expand(10**12)}),
        "which claims more numbers than it has (1)",
    ),
    "a name that paints the terminal": (poisoned(state_dict={"\x1b[31m": torch.zeros(1)}), "surplus ?[31m"),
    "options left out, and a huge patch": (
        poisoned(datamodule_hyper_parameters={"attack_options": {"size": 100_000}}),
        "--data.attack.size 100000: larger than images",
    ),
    "no trigger": (poisoned(PoisonDataModule={"trigger": {}}), "its trigger does not fit BadNets"),
    "a trigger of another shape": (
        poisoned(PoisonDataModule={"trigger": {"patch": torch.zeros(3)}}),
        "its trigger does not fit",
    ),
    "a trigger of another name": (
        poisoned(PoisonDataModule={"trigger": {"x": torch.zeros(3)}}),
        "its trigger does not fit",
    ),
    "a trigger as large as the moon": (
        poisoned(PoisonDataModule={"trigger": {"patch": torch.zeros(4, 99, 99)}}),
        "its trigger does not fit",
    ),
    "a class that its images lack": (
        poisoned(datamodule_hyper_parameters={"attack_options": {"target_class": 99}}),
        "--data.attack.target_class 99",
    ),
}


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("what", WRONG)
def test_wrong_checkpoints_end_in_one_line(what: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = WRONG[what]
    content = change(torch.load(tiny_suspect, weights_only=True))
    torch.save(content, "wrong.ckpt")
    with pytest.raises(SystemExit) as caught:
        main(["test", "--ckpt", "wrong.ckpt", "--trainer.enable_progress_bar", "false"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert "wrong.ckpt" in lines[0] or lines[0].startswith("bdclean: error: --")
    assert not MARK.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable checkpoint"),
        (b"no checkpoint at all", "not a readable checkpoint"),
        (pickle.dumps(Bomb()), "refused, it would run code on loading: posix.mkdir"),
        (b"PK\x03\x04" + bytes(100), "not a readable checkpoint"),
    ],
)
def test_files_that_are_not_checkpoints(content: bytes, message: str) -> None:
    Path("file.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=f"ckpt file.ckpt: .*{message}") as caught:
        read("file.ckpt")
    assert "\n" not in str(caught.value)
    assert not MARK.exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_checkpoints(tiny_suspect: Path, share: float) -> None:
    content = tiny_suspect.read_bytes()
    Path("cut.ckpt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="ckpt cut.ckpt: not a readable checkpoint"):
        read("cut.ckpt")


def test_arguments_of_a_network_may_be_nested(tiny_suspect: Path) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    content["hyper_parameters"]["arch_kwargs"] = kwargs = {"blocks": [[8, 1], [16, 2]], "norm": {"eps": 0.001}}
    torch.save(content, "nested.ckpt")
    assert read("nested.ckpt").model["arch_kwargs"] == kwargs


def test_a_checkpoint_contains_only_plain_values(tiny_suspect: Path) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    assert content["hyper_parameters"]["arch"] == "small_cnn"
    assert content["datamodule_hyper_parameters"]["attack"] == "BadNets"
    assert content["PoisonDataModule"]["trigger"]["patch"].shape == (4, 3, 3)
    assert not content["optimizer_states"] if "optimizer_states" in content else True


def changed(path: Path, **data: Any) -> str:
    """A checkpoint with other metadata about its images."""
    content = torch.load(path, weights_only=True)
    content["datamodule_hyper_parameters"] |= data
    torch.save(content, "changed.ckpt")
    return "changed.ckpt"


QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("source", ["cifar10", "/sys", "some where", "others.npz"])
def test_a_checkpoint_causes_no_reads_or_downloads(
    source: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images that a checkpoint names are only suggested; the command works without them."""
    path = changed(tiny_suspect, source=source)
    monkeypatch.setattr("bdclean.data.sources.Source.download", lambda self: None)
    option = f"--data.source {shlex.quote(source)}"
    with pytest.raises(SystemExit) as caught:
        main(["test", "--ckpt", path, *QUIET])
    output = capsys.readouterr()
    assert caught.value.code == 2
    error = output.err.strip()
    assert error.endswith(f"says that it was trained on {source}, which is not read automatically: {option}")
    main(["scan", "--ckpt", path, *QUIET, "--data.unlabeled", "procedural", "--data.num_unlabeled", "16"])
    assert f"changed.ckpt says that it was trained on {source}: {option} measures ACC there" in capsys.readouterr().out
    main(["test", "--ckpt", path, *QUIET, "--data.source", "shapes"])
    Path("config.yaml").write_text("data:\n  source: shapes\n")
    main(["test", "--config", "config.yaml", "--ckpt", path, *QUIET])
    assert "says that it was trained on" not in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_shapes")
def test_a_checkpoint_cannot_name_a_picture_to_read(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(tiny_suspect, attack_options={"trigger": "/etc/hostname", "size": 3, "margin": 1})
    with pytest.raises(SystemExit):
        main(["test", "--ckpt", path, *QUIET, "--data.attack.margin", "2"])
    assert "--data.attack.trigger: needed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["test", "--ckpt", path, *QUIET, "--data.attack.margin", "2", "--data.attack.trigger", "/etc/hostname"])
    assert "--data.attack.trigger /etc/hostname: not a readable image" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("part", "values", "reason"),
    [
        ("hyper_parameters", {"image_size": 4096}, "image_size cannot be 4096"),
        ("hyper_parameters", {"arch": "wrn_28_10", "image_size": 800}, "a layer of wrn_28_10 has 102400000 values"),
        ("hyper_parameters", {"arch_kwargs": {"kernel": 10**6}}, "arch_kwargs cannot be"),
        ("datamodule_hyper_parameters", {"crop_padding": 4096}, "crop_padding cannot be 4096"),
        ("datamodule_hyper_parameters", {"crop_padding": 33}, "crop_padding cannot be 33 for images of 32 pixels"),
        ("datamodule_hyper_parameters", {"attack_options": {"poison_rate": None}}, "poison_rate cannot be None"),
        ("datamodule_hyper_parameters", {"attack_options": {"poison_rate": "0.1"}}, "poison_rate is a string"),
        ("datamodule_hyper_parameters", {"attack_options": {"poison_rate": [1]}}, "poison_rate"),
        ("datamodule_hyper_parameters", {"attack_options": {"target_class": 2**70}}, "attack_options cannot be"),
        ("datamodule_hyper_parameters", {"attack_options": {"alpha": float("inf")}}, "attack_options cannot be"),
    ],
)
def test_values_are_checked_by_type_and_cost(
    part: str, values: dict[str, Any], reason: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    content[part] |= values
    torch.save(content, "costly.ckpt")
    with pytest.raises(SystemExit) as caught:
        main(["test", "--ckpt", "costly.ckpt", *QUIET])
    line = capsys.readouterr().err.strip()
    assert (caught.value.code, line.count("\n")) == (2, 0)
    assert reason in line


def test_entries_that_are_left_out_are_reported(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(tiny_suspect, weights_only=True)["state_dict"]
    torch.save({"net": state, "args": argparse.Namespace(lr=1)}, "theirs.pth")
    images = ["--data.unlabeled", "procedural", "--data.num_unlabeled", "16", "--model.mean", "none"]
    main(["scan", "--ckpt", "theirs.pth", *QUIET, *images])
    line = "theirs.pth: left out, as they are neither tensors nor plain values: argparse.Namespace under 'args'"
    assert line in capsys.readouterr().out.splitlines()
