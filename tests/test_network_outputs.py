"""Networks that output probabilities, tuples or dictionaries instead of logits."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdclean
from bdclean import InputError
from bdclean.modules import Classifier
from bdclean.networks import noise, outputs_of, plain, read_logits
from bdclean.networks.outputs import to_logits
from tests.strangers import Pooled


@dataclass
class Result:
    logits: Tensor


class Ending(nn.Module):
    """A network whose outputs are those of another, changed."""

    def __init__(self, end: Callable[[Tensor], Any], classes: int = 4) -> None:
        super().__init__()
        self.body = Pooled(classes)
        self.end = end

    def forward(self, images: Tensor) -> Any:
        return self.end(20 * self.body(images))


IMAGES = noise(3, 16)


def logits_of(network: nn.Module) -> Tensor:
    read_logits(network, IMAGES)
    return network.eval()(IMAGES)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (nn.Identity(), "logits"),
        (torch.relu, "logits"),
        (nn.Softmax(1), "probabilities"),
        (nn.Softmax(-1), "probabilities"),
        (lambda x: torch.softmax(x, 1), "probabilities"),
        (nn.LogSoftmax(1), "log-probabilities"),
        (nn.Sigmoid(), "sigmoids"),
        (torch.sigmoid, "sigmoids"),
    ],
)
def test_kinds_of_outputs(end: Callable[[Tensor], Tensor], kind: str) -> None:
    torch.manual_seed(0)
    network = Ending(end).eval()
    expected = 20 * network.body(IMAGES)
    found = outputs_of(network, IMAGES)
    assert (found.kind, found.num_classes, found.place) == (kind, 4, "")
    assert bool(found.describe()) == (kind != "logits")
    raw = network(IMAGES)
    logits = logits_of(network)
    # The same probabilities as before, of each class against the others.
    if kind != "sigmoids":
        expected = end(expected) if kind == "logits" else expected
        assert torch.allclose(logits.softmax(1), expected.softmax(1), atol=1e-6)
    else:
        assert torch.allclose(logits.sigmoid(), expected.sigmoid(), atol=1e-6)
    assert torch.equal(plain(network)(IMAGES), raw)


@pytest.mark.parametrize("end", [nn.Identity(), lambda x: x[:, 0], nn.Sigmoid(), torch.sigmoid])
def test_one_number_stands_for_two_classes(end: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network = Ending(end, classes=1).eval()
    number = 20 * network.body(IMAGES)[:, 0]
    assert outputs_of(network, IMAGES).num_classes == 2
    logits = logits_of(network)
    assert logits.shape == (len(IMAGES), 2)
    assert torch.allclose(logits.softmax(1)[:, 1], number.sigmoid(), atol=1e-6)


@pytest.mark.parametrize(
    ("end", "place"),
    [
        (lambda x: (x, x + 1), "[0]"),
        (lambda x: [x[0, 0], x], "[1]"),
        (lambda x: {"aux": x + 1, "logits": x}, "['logits']"),
        (lambda x: {"out": x}, "['out']"),
        (Result, ".logits"),
    ],
)
def test_places_of_outputs(end: Callable[[Tensor], Any], place: str) -> None:
    network = Ending(end).eval()
    expected = 20 * network.body(IMAGES)
    found = outputs_of(network, IMAGES)
    assert (found.kind, found.place) == ("logits", place)
    assert place in found.describe()
    assert torch.equal(logits_of(network), expected)


@pytest.mark.parametrize(
    "end", [str, lambda x: x.sum(), lambda x: (x.sum(), "a"), lambda x: x[:, :, None], lambda x: x.argmax(1)]
)
def test_networks_that_are_not_classifiers_are_refused(end: Callable[[Tensor], Any]) -> None:
    with pytest.raises(InputError, match="outputs"):
        outputs_of(Ending(end), IMAGES)


def test_a_softmax_that_has_rounded_to_zero_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.Softmax(1))
    with torch.no_grad():
        network[1].weight.mul_(1e4)
    assert (network(IMAGES) == 0).any()
    images = IMAGES.clone().requires_grad_()
    logits = logits_of(network)
    assert logits.isfinite().all()
    (gradient,) = torch.autograd.grad(network(images)[:, 3].sum(), images)
    assert (gradient.flatten(1).norm(dim=1) > 1).all()


def test_the_logarithm_of_zero_is_finite() -> None:
    assert to_logits(torch.tensor([[0.0, 1.0]]), "probabilities").isfinite().all()
    assert to_logits(torch.tensor([[0.0, 1.0]]), "sigmoids").isfinite().all()


def test_modes_and_statistics_do_not_change() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 196, 4), nn.Softmax(1))
    network[1].eval()
    before = copy.deepcopy(network.state_dict())
    read_logits(network, IMAGES)
    assert [part.training for part in network] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_classifier_computes_with_logits_and_its_copy_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Pooled(), nn.Softmax(1))
    model = Classifier(network, 4, 16, [0.0] * 3, [1.0] * 3).eval()
    assert torch.allclose(model(IMAGES).logsumexp(1), torch.zeros(len(IMAGES)), atol=1e-6)
    again = Classifier(copy.deepcopy(network), 4, 16, [0.0] * 3, [1.0] * 3).eval()
    assert torch.equal(again(IMAGES), model(IMAGES))
    assert again.outputs == model.outputs


def test_the_cleansed_network_has_the_suspects_kind_of_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Pooled(), nn.Softmax(1))
    cleansed = bdclean.cleanse(
        model, torch.rand(20, 3, 16, 16), method="DistillCleanseModule", epochs=1, enable_progress_bar=False
    )
    assert capsys.readouterr().out.count("it outputs probabilities") == 1
    assert torch.allclose(cleansed(IMAGES).sum(1), torch.ones(len(IMAGES)))


def test_features_are_not_mistaken_for_logits() -> None:
    network = Ending(lambda x: (x.repeat(1, 8), x)).eval()
    assert (outputs_of(network, IMAGES).place, outputs_of(network, IMAGES).num_classes) == ("[1]", 4)
    # If the number of classes is known, the width decides.
    assert outputs_of(network, IMAGES, 32).place == "[0]"
