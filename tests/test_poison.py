"""Poisoned training sets are written, read back and trained on with the same result as `fit` by itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bdclean import InputError
from bdclean.attacks import LabelConsistent
from bdclean.attacks.surrogate import train_surrogate
from bdclean.cli.main import main
from bdclean.data.prepared import Parts
from bdclean.data.sources import Source, open_source
from tests.conftest import QUICK, QUIET

NETWORK = ["--model.arch", "small_cnn", "--model.lr", "0.1", "--trainer.logger", "false"]
CONSISTENT = ["--data.attack", "LabelConsistent", "--data.attack.surrogate_epochs", "0.5", "--data.attack.steps", "2"]
ATTACKS = {
    "BadNets": ["--data.attack", "BadNets"],
    "AdaptiveBlend": ["--data.attack", "AdaptiveBlend"],
    "LabelConsistent": CONSISTENT,
}


@pytest.fixture(autouse=True)
def _images() -> None:
    generator = np.random.default_rng(0)
    pixels = {f"x_{part}": generator.integers(0, 256, (n, 16, 16, 3), np.uint8) for part, n in PARTS.items()}
    np.savez("images.npz", **pixels, **{f"y_{part}": np.arange(n) % 4 for part, n in PARTS.items()})


PARTS = {"train": 200, "test": 40}


def poison(*words: str, output: str = "set.npz") -> None:
    main(["poison", "--data.source", "images.npz", *NETWORK, *QUIET, "--output", output, *words])


def trained(*words: str) -> dict[str, torch.Tensor]:
    """The weights after an epoch on a source."""
    main(["fit", *NETWORK, *QUICK, "--trainer.enable_checkpointing", "false", "--overwrite", "true", *words])
    weights: dict[str, torch.Tensor] = torch.load("suspect.ckpt", weights_only=True)["state_dict"]
    return weights


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("bdclean: error: ")


def figures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The row of figures that `fit` prints."""
    return next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("suspect.ckpt"))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_written_set_trains_the_same_network(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = trained("--data.source", "images.npz", *ATTACKS[name])
    row = figures(capsys)
    assert len(row) == 4
    poison(*ATTACKS[name])
    poison(*ATTACKS[name], output="folder")
    for source in (["set.npz"], ["folder", "--data.image_size", "16"]):
        capsys.readouterr()
        weights = trained("--data.source", *source)
        assert figures(capsys) == row
        assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_the_arrays_are_those_of_the_source_with_poisoned_images() -> None:
    poison("--data.attack", "BadNets", "--data.attack.target_class", "2")
    clean, found = np.load("images.npz"), np.load("set.npz")
    indices = found["indices"]
    changed = (found["images"] != clean["x_train"]).any((1, 2, 3))
    assert len(indices) > 10
    assert set(changed.nonzero()[0]) <= set(indices)
    assert np.array_equal((found["labels"] != clean["y_train"]).nonzero()[0], indices)
    assert np.array_equal(found["true_labels"], clean["y_train"])
    assert set(found["labels"][indices]) == {2} == {int(found["target"])}
    assert np.array_equal(found["test_images"], clean["x_test"])
    assert set(found["triggered_targets"]) == {2}
    assert 2 not in found["triggered_labels"]


def test_a_folder_has_a_table_and_a_description() -> None:
    poison("--data.attack", "BadNets", output="folder/")
    description = json.loads(Path("folder/poison.json").read_text())
    rows = [line.split(",") for line in Path("folder/train/labels.csv").read_text().splitlines()[1:]]
    assert [index for index, row in enumerate(rows) if row[3] == "poisoned"] == description["indices"]
    assert all(row[1] == "0" for row in rows if row[3] == "poisoned")
    poison("--data.attack", "BadNets")
    pixels = np.load("set.npz")["images"]
    for index in (description["indices"][0], 199):
        assert np.array_equal(np.asarray(Image.open(f"folder/train/{index:03}.png")), pixels[index])


def test_only_sets_of_the_same_options_are_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["poison", "--data.source", "images.npz", *NETWORK, *QUIET, "--data.attack.target_class", "3"]
    for output in ("set.npz", "folder"):
        poison(output=output)
        poison(output=output)
        assert "--overwrite true replaces it" in refusal([*words, "--output", output], capsys)
        main([*words, "--output", output, "--overwrite", "true"])
    Path("folder/mine.txt").touch()
    line = refusal([*words, "--output", "folder", "--overwrite", "true"], capsys)
    assert line == "--output folder: is a folder with other files (mine.txt); choose a new name"


REFUSED = {
    "--data.attack WaNet": "--data.attack WaNet: poisons in each training step, so there is no set to write",
    "--data.attack null": "--data.attack null: needed: without an attack there is nothing to poison",
    "--data.attack.poison_rate 0": "--data.attack.poison_rate 0: poisons no image",
    "--output set.zip": "--output set.zip: must end with .npz",
    "--output nowhere/set.npz": "--output nowhere/set.npz: there is no folder nowhere",
    "--data.attack LabelConsistent --data.attack.surrogate images.npz": "--data.attack.surrogate images.npz: not a",
    "--data.attack LabelConsistent --data.attack.trigger no.png": "--data.attack.trigger no.png: neither a file nor",
    "--trainer.devices 2": "--trainer.devices 2: poison runs in one process",
}


@pytest.mark.parametrize("words", REFUSED)
def test_mistakes_are_refused_and_nothing_is_written(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["poison", "--data.source", "images.npz", *NETWORK, *QUIET, *words.split()]
    assert refusal(command, capsys).startswith(REFUSED[words])
    assert {path.name for path in Path.cwd().iterdir()} <= {"images.npz", "data"}


def test_a_poisoned_set_is_not_poisoned_again(capsys: pytest.CaptureFixture[str]) -> None:
    poison()
    line = "--data.attack BadNets: set.npz is poisoned already; --data.attack null trains on it as it is"
    for command in ("fit", "poison"):
        words = [command, "--data.source", "set.npz", *NETWORK, *QUICK, "--data.attack", "BadNets"]
        assert refusal(words, capsys) == line


def arrays(**other: Any) -> dict[str, Any]:
    return {"images": np.zeros((6, 8, 8, 3), np.uint8), "labels": np.arange(6) % 2} | other


HOSTILE: dict[str, dict[str, Any]] = {
    "indices must hold indices": arrays(indices=np.array([6])),
    "indices cannot be read": arrays(indices=np.array([{}], dtype=object)),
    "labels must hold class numbers, not 200000": arrays(labels=np.arange(6) * 200_000),
    "labels must hold class numbers, not 0.5": arrays(labels=np.arange(6) / 2),
    "labels must hold class numbers, not nan": arrays(labels=np.full(6, np.nan)),
    "targets must hold classes below 2": arrays(
        triggered_images=np.zeros((1, 8, 8, 3), np.uint8), triggered_labels=[0], triggered_targets=[5]
    ),
    "do not fit together": arrays(
        triggered_images=np.zeros((1, 8, 8, 3), np.uint8), triggered_labels=[7], triggered_targets=[1]
    ),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_hostile_arrays_are_refused(reason: str) -> None:
    np.savez("hostile.npz", **HOSTILE[reason])
    with pytest.raises(InputError) as caught:
        read_wholly(open_source("hostile.npz"))
    assert reason in str(caught.value)


def read_wholly(source: Source) -> None:
    assert source.num_classes
    assert source.poisoned is not None or source.triggered() is not None


@pytest.mark.parametrize("content", ["[", "[]", "{}", '{"images": 9, "indices": [9]}', '{"images": true}'])
def test_hostile_descriptions_are_refused(content: str) -> None:
    poison(output="folder")
    Path("folder/poison.json").write_text(content)
    with pytest.raises(InputError, match=r"poison\.json must have"):
        _ = open_source("folder").poisoned


@pytest.mark.parametrize("row", ["../train/000.png,0,1", "00.png,0,9", "00.png,0", "no.png,0,1", "00.png,x,1"])
def test_hostile_tables_of_triggered_images_are_refused(row: str) -> None:
    poison(output="folder")
    Path("folder/triggered/labels.csv").write_text(f"filename,label,target\n{row}\n")
    with pytest.raises(InputError, match=r"line 2 must name an image there and two classes"):
        open_source("folder").triggered()


def test_sets_with_the_names_of_others_are_read() -> None:
    # The data sets of label_consistent_attacks_pytorch have classes as floats.
    np.savez("other.npz", data=np.zeros((4, 8, 8, 3), np.uint8), targets=np.arange(4, dtype=np.float32))
    source = open_source("other.npz")
    assert source.load("train", 8).labels.tolist() == [0, 1, 2, 3]
    assert source.poisoned is None
    assert not source.has("test")


def test_an_interrupted_preparation_continues_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdclean.attacks.label_consistent.batch_size", lambda _: 4)
    poison(*CONSISTENT, "--data.root", "once", output="once.npz")
    keep, kept = Parts.keep, []

    def interrupted(self: Parts, name: str, make: Any) -> Any:
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(name)
        return keep(self, name, make)

    monkeypatch.setattr(Parts, "keep", interrupted)
    with pytest.raises(SystemExit) as caught:
        poison(*CONSISTENT)
    assert caught.value.code == 130
    assert not Path("set.npz").exists()
    assert kept == ["surrogate", "perturbed-0", "perturbed-1"]
    made: list[str] = []
    monkeypatch.setattr(Parts, "keep", lambda self, name, make: keep(self, name, lambda: made.append(name) or make()))
    poison(*CONSISTENT)
    assert made
    assert not set(made) & set(kept)
    assert np.array_equal(np.load("once.npz")["images"], np.load("set.npz")["images"])
    assert not [*Path("data/prepared").glob("*.parts")]


def test_a_surrogate_of_the_user_makes_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    trained("--data.source", "images.npz", "--data.attack", "null")
    poison(*CONSISTENT)
    poison(*CONSISTENT, "--data.attack.surrogate", "suspect.ckpt", output="own.npz")
    own, other = np.load("own.npz"), np.load("set.npz")
    assert np.array_equal(own["indices"], other["indices"])
    assert not np.array_equal(own["images"], other["images"])


def test_a_picture_with_opacity() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[7, 7] = (0, 255, 0, 51)
    Image.fromarray(pixels).save("trigger.png")
    attack = LabelConsistent(trigger="trigger.png", opacity=0.5)
    attack.build(8)
    images = torch.full((2, 3, 8, 8), 0.4)
    triggered = attack.apply(images)
    assert triggered[0, :, 0, 0].tolist() == pytest.approx([0.7, 0.2, 0.2])
    assert triggered[1, :, 7, 7].tolist() == pytest.approx([0.36, 0.46, 0.36])
    changed = (triggered != images).any(1)
    assert changed[0].nonzero().tolist() == [[0, 0], [7, 7]]


def test_adversarial_training_uses_perturbed_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    class Net(nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(float((images - 0.5).abs().max()))
            return super().forward(images.flatten(1))

    images, labels = torch.full((8, 3, 2, 2), 0.5), torch.arange(8) % 2
    for eps, expected in ((0.0, 0.0), (0.1, 0.1)):
        seen.clear()
        train_surrogate(Net(12, 2), lambda indices: images[indices], labels, 1, 0.1, eps)
        assert max(seen) == pytest.approx(expected)
