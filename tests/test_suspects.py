"""Suspects from files, with the Python API."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bdclean import InputError, tasks
from bdclean.attacks import BadNets
from bdclean.checkpoint import read
from bdclean.cleansing import CLP
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given
from bdclean.suspects.loading import load
from bdclean.suspects.vetting import check_options, described


def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=0)


@pytest.mark.usefixtures("tiny_shapes")
def test_a_suspect_is_read_with_its_images_and_its_trigger(tiny_suspect: Path) -> None:
    model, data = load(str(tiny_suspect))
    assert isinstance(data.attack, BadNets)
    figures = tasks.evaluate(trainer(), model, data)
    assert None not in figures.percents().values()
    cleanser, result = tasks.cleanse(trainer(), model, data, CLP, scan=False)
    assert result.suspect == figures
    assert result.paths.checkpoint == str(tiny_suspect)
    # Without an output, nothing is written.
    assert not [path for path in Path.cwd().iterdir() if path.suffix]
    assert cleanser.network is not model.network


@pytest.mark.usefixtures("tiny_shapes")
def test_arguments_override_the_checkpoint(tiny_suspect: Path) -> None:
    _, data = load(str(tiny_suspect), unlabeled="procedural", num_unlabeled=30, seed=5)
    assert data.unlabeled is not None
    assert (data.unlabeled.name, data.num_unlabeled, data.seed) == ("procedural", 30, 5)
    with pytest.raises(InputError, match="num_classes|does not fit"):
        load(str(tiny_suspect), model={"num_classes": 7})


def test_a_trigger_that_does_not_fit_is_refused(tiny_suspect: Path) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    options = read(str(tiny_suspect)).data["attack_options"]
    (key,) = (key for key, value in content.items() if isinstance(value, dict) and "attack_options" in value)
    content[key] = content[key] | {"attack_options": options | {"size": "large"}}
    torch.save(content, "wrong.ckpt")
    with pytest.raises(InputError, match="ckpt wrong.ckpt: its attack's size cannot be 'large'"):
        load("wrong.ckpt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poison_rate": None}, "its attack's poison_rate cannot be None"),
        ({"size": "4"}, "its attack's size is a string"),
        ({"size": [4]}, r"its attack's size cannot be \[4\]"),
        ({"colour": 4}, "its attack's colour cannot be 4"),
    ],
)
def test_options_of_an_attack_are_those_of_its_constructor(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^ckpt here: {message}$"):
        check_options(BadNets, options, Given("ckpt", "here"))


def test_images_that_a_checkpoint_names_are_not_read(tiny_suspect: Path) -> None:
    content = torch.load(tiny_suspect, weights_only=True)
    assert described(read(str(tiny_suspect))).data["source"] == "shapes"
    (key,) = (key for key, value in content.items() if isinstance(value, dict) and "attack_options" in value)
    content[key] = content[key] | {"source": "/somewhere"}
    torch.save(content, "elsewhere.ckpt")
    assert described(read("elsewhere.ckpt")).data["source"] is None
    images = load("elsewhere.ckpt")[1]
    assert images.source is None
    assert images.unlabeled is not None
    assert images.unlabeled.name == "procedural"
