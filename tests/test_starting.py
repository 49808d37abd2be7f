"""Training from the weights of another network."""

from pathlib import Path

import pytest
import torch

from bdclean import InputError
from bdclean.cli.main import main
from bdclean.modules import AttackModule
from bdclean.networks import build_network
from tests.conftest import CONFIGS, QUIET


def saved(arch: str, classes: int) -> dict[str, torch.Tensor]:
    """Weights of a new network, in a file weights.pth."""
    state: dict[str, torch.Tensor] = build_network(arch, classes, 32).state_dict()
    torch.save(state, "weights.pth")
    return state


def test_the_network_is_recognised_and_gets_all_weights() -> None:
    state = saved("small_cnn", 10)
    model = AttackModule(weights="weights.pth")
    assert model.hparams["arch"] == "small_cnn"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_network_with_other_classes_gets_a_new_last_layer(caplog: pytest.LogCaptureFixture) -> None:
    state = saved("resnet20", 7)
    model = AttackModule(num_classes=10, weights="weights.pth")
    new = {name for name, value in model.state_dict().items() if value.shape != state[name].shape}
    assert len(new) == 2
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if name not in new)
    assert "start from random weights (7 classes there, 10 here)" in caplog.text


def test_normalisation_comes_from_the_file_if_it_has_one() -> None:
    model = AttackModule("small_cnn", mean=0.1, std=0.3)
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, "ours.ckpt")
    assert AttackModule(weights="ours.ckpt").hparams["mean"] == [0.1] * 3
    assert AttackModule(weights="ours.ckpt", mean=0.5, std=0.5).hparams["mean"] == [0.5] * 3
    saved("small_cnn", 10)
    assert AttackModule(weights="weights.pth").hparams["mean"] == [0.5] * 3


def test_weights_that_do_not_fit_are_refused() -> None:
    state = saved("small_cnn", 10)
    with pytest.raises(InputError, match="^weights weights.pth: does not fit resnet20"):
        AttackModule("resnet20", weights="weights.pth")
    torch.save({name: value * torch.nan for name, value in state.items() if value.is_floating_point()}, "nan.pth")
    with pytest.raises(InputError, match="^weights nan.pth: .*not all numbers are finite"):
        AttackModule(weights="nan.pth")


@pytest.mark.usefixtures("tiny_shapes")
def test_fit_starts_from_them(capsys: pytest.CaptureFixture[str]) -> None:
    state = saved("small_cnn", 10)
    still = ["--model.lr", "1e-30", "--model.weight_decay", "0", "--trainer.max_epochs", "1"]
    command = ["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUIET, *still, "--model.arch", "null"]
    main([*command, "--model.weights", "weights.pth"])
    written = torch.load("suspect.ckpt", weights_only=True)["state_dict"]
    assert all(torch.allclose(written[name], state[name]) for name in state if name.endswith("weight"))
    with pytest.raises(SystemExit) as error:
        main([*command, "--model.weights", "none.pth", "--output", "other.ckpt"])
    assert error.value.code == 2
    assert "--model.weights none.pth: no such file" in capsys.readouterr().err
    assert not Path("other.ckpt").exists()
