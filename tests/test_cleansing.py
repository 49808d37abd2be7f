import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from bdclean import InputError
from bdclean.cleansing import DistillCleanseModule
from bdclean.cleansing.reinitialise import reinitialise, stage_ratios
from bdclean.modules import Classifier, Suspect
from bdclean.networks import find_stages
from bdclean.tables import Table
from bdclean.training import kd_loss


@pytest.fixture
def suspect() -> Classifier:
    torch.manual_seed(0)
    return Suspect("resnet20", num_classes=10, image_size=32, mean="none")


def test_kd_loss_against_a_loop() -> None:
    torch.manual_seed(0)
    student, teacher, temperature = torch.randn(5, 4), torch.randn(5, 4), 2.5
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(value / temperature) for value in t]
        q = [math.exp(value / temperature) for value in s]
        p, q = [value / sum(p) for value in p], [value / sum(q) for value in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert kd_loss(student, teacher, temperature).item() == pytest.approx(total / 5, rel=1e-5)
    assert kd_loss(student, student, temperature).item() == pytest.approx(0, abs=1e-6)


def test_reinitialise_replaces_only_the_given_share() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 500), nn.Linear(500, 9)
    )
    before = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in (*network.parameters(), *before.parameters()):
            parameter.fill_(7.0)
    reinitialise(network, {"0": 0.3, "3": 0.05, "4": 1.0}, torch.Generator().manual_seed(0))
    changed = {name: (value != 7).float().mean().item() for name, value in network.named_parameters()}
    assert changed["0.weight"] == pytest.approx(0.3, abs=0.03)
    assert changed["3.weight"] == pytest.approx(0.05, abs=0.005)
    assert changed["4.weight"] == 1
    assert all(share == 0 for name, share in changed.items() if "bias" in name or name.startswith("1."))
    # The layers' own initialiser: uniform up to 1 / sqrt(inputs), for these two.
    assert network[4].weight.abs().max() <= 1 / math.sqrt(500)
    fresh = network[0].weight[network[0].weight != 7]
    assert 0.9 / math.sqrt(27) < fresh.abs().max() <= 1 / math.sqrt(27)


def test_reinitialise_depends_only_on_its_generator(suspect: Classifier) -> None:
    ratios = {layer.name: 0.5 for layer in find_stages(suspect, 32)}

    def once(seed: int) -> torch.Tensor:
        student = copy.deepcopy(suspect)
        torch.rand(seed + 1)
        reinitialise(student, ratios, torch.Generator().manual_seed(seed))
        return torch.cat([value.flatten() for value in student.network.parameters()])

    state = torch.get_rng_state()
    assert torch.equal(once(3), once(3))
    torch.set_rng_state(state)
    reinitialise(copy.deepcopy(suspect), ratios, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(once(3), once(4))


def test_attention_is_reinitialised_too() -> None:
    network = nn.MultiheadAttention(16, 2)
    before = copy.deepcopy(network)
    reinitialise(nn.Sequential(network), {"0": 1.0, "0.out_proj": 1.0}, torch.Generator().manual_seed(0))
    assert (network.in_proj_weight != before.in_proj_weight).all()
    assert (network.out_proj.weight != before.out_proj.weight).all()


@pytest.mark.parametrize("stages", range(1, 12))
def test_stage_ratios_fit_any_depth(stages: int) -> None:
    ratios = stage_ratios(stages)
    assert len(ratios) == stages
    assert all(0 < ratio <= 0.27 for ratio in ratios)


def test_the_student_starts_from_the_suspect_and_the_teacher_does_not_change(suspect: Classifier) -> None:
    suspect.eval()
    images = torch.rand(4, 3, 32, 32)
    cleanser = DistillCleanseModule(suspect, ratios=[0, 0, 0, 0, 0])
    assert all(
        torch.equal(a, b) for a, b in zip(cleanser.network.parameters(), suspect.network.parameters(), strict=True)
    )
    assert not cleanser.teacher.training
    assert cleanser.network.training
    assert torch.equal(cleanser.teacher(cleanser.normalize(images)), suspect(images))
    assert torch.allclose(cleanser.teach(images), suspect(images), atol=1e-5)
    assert not cleanser.teach(images).requires_grad
    cleanser.train()
    assert not any(module.training for part in (cleanser.teacher, cleanser.quick) for module in part.modules())
    assert set(cleanser.state_dict()) == set(suspect.network.state_dict())
    before = {name: value.clone() for name, value in suspect.network.state_dict().items()}
    DistillCleanseModule(suspect, ratios=[1, 1, 1, 1, 1])
    assert all(torch.equal(value, before[name]) for name, value in suspect.network.state_dict().items())


def test_norm_layers_keep_parameters_and_statistics(suspect: Classifier) -> None:
    cleanser = DistillCleanseModule(suspect, ratios=[1, 1, 1, 1, 1])
    for name, value in cleanser.network.state_dict().items():
        kept = torch.equal(value, suspect.network.state_dict()[name])
        is_weight = "conv" in name or name == "linear.weight"
        assert kept == (not is_weight), name


def test_the_table_shows_every_layer(suspect: Classifier) -> None:
    (table,) = DistillCleanseModule(suspect).describe()
    assert isinstance(table, Table)
    assert table.rows[0] == ("conv1", "16x3x3x3", "stem", "0.01")
    assert table.rows[-1] == ("linear", "10x64", "head", "0.1")
    assert len(table.rows) == 20


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ratios": [0.1, 0.2]}, r"ratios \[0.1, 0.2\]: 2 numbers, but the network has 5 stages"),
        ({"ratios": [0.1, 0.2, 0.3, 0.4, 1.5]}, "ratios"),
        ({"temperature": (0, 1)}, "temperature"),
    ],
)
def test_wrong_options_are_named(suspect: Classifier, options: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        DistillCleanseModule(suspect, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
        lambda layer: prune.random_unstructured(layer, "weight", 0.3),
    ],
)
def test_parametrised_weights_are_reinitialised_too(change: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    layer = change(nn.Conv2d(3, 8, 3))
    before = layer.weight.detach().clone()
    reinitialise(nn.Sequential(layer), {"0": 1.0}, torch.Generator().manual_seed(0))
    layer.eval()(torch.rand(1, 3, 8, 8))
    changed = layer.weight.detach() != before
    assert changed[before != 0].float().mean() > 0.95


def test_a_frozen_suspect_is_trained_too(suspect: Suspect) -> None:
    suspect.requires_grad_(False)
    cleanser = DistillCleanseModule(suspect)
    assert all(parameter.requires_grad for parameter in cleanser.network.parameters())
    assert not any(parameter.requires_grad for parameter in cleanser.teacher.parameters())
    assert not any(parameter.requires_grad for parameter in suspect.parameters())
