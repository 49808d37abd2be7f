"""TaCT, CTRL, LF, Grond, Blind, ReFool, PoisonInk, MultiTrigger and SRA against slow references of their formulas."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean import InputError, tasks
from bdclean.attacks import (
    CTRL,
    LF,
    SIG,
    SRA,
    Attack,
    BadNets,
    Blended,
    Blind,
    Grond,
    MultiTrigger,
    PoisonInk,
    ReFool,
    TaCT,
)
from bdclean.attacks.blind import least_norm
from bdclean.attacks.refool import blurred, ghost
from bdclean.attacks.roles import CLEAN, COVER, POISONED
from bdclean.cli.main import main
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.modules import AttackModule
from tests.conftest import QUIET
from tests.test_attack_mathematics import ftrojan_reference, none_of, random_images, ready, tiny

LABELS = torch.arange(1000) % 10


# One source class


def test_one_to_one_changes_the_source_class_alone() -> None:
    attack = BadNets(target_class=3, source_class=7, label_mode="one-to-one", poison_rate=0.2)
    assert attack.target_labels(torch.arange(10), 10).tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 8, 9]
    roles = attack.choose(LABELS, 10)
    # A share of the source class, as that of the target class in clean-label.
    assert torch.bincount(roles).tolist() == [980, 20]
    assert (LABELS[roles == POISONED] == 7).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"source_class": 3}, "source_class 3: must differ"),
        ({"source_class": 10}, "source_class 10: the data have classes 0 to 9"),
        ({"source_class": -1}, "source_class -1"),
        ({"poison_rate": 0.001}, "poison_rate 0.001: poisons none"),
    ],
)
def test_wrong_source_classes_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        BadNets(**{"target_class": 3, "label_mode": "one-to-one"} | options).choose(LABELS, 10)


def test_a_source_class_without_images_is_an_error() -> None:
    with pytest.raises(InputError, match="source_class 3: none of 20 training images"):
        TaCT(source_class=3).choose(torch.arange(20) % 3, 4)


@pytest.mark.usefixtures("tiny_shapes")
def test_asr_is_measured_on_test_images_of_the_source_class() -> None:
    data = PoisonDataModule("shapes", BadNets(label_mode="one-to-one", source_class=4, target_class=2, poison_rate=0.5))
    data.setup("test")
    clean, triggered = data.test_dataloader()
    targets, labels = (torch.cat([batch[place] for batch in triggered]) for place in (1, 2))
    assert set(targets.tolist()) == {2}
    assert set(labels.tolist()) == {4}
    assert len(labels) == sum(int((batch[2] == 4).sum()) for batch in clean)


def test_cover_of_tact_is_of_other_classes() -> None:
    attack = TaCT(target_class=2, source_class=5, poison_rate=0.4, cover_ratio=3)
    roles = attack.choose(LABELS, 10)
    assert torch.bincount(roles).tolist() == [840, 40, 120]
    assert (LABELS[roles == POISONED] == 5).all()
    assert not {2, 5} & {*LABELS[roles == COVER].tolist()}
    images = random_images(2, 12, 12)
    other = BadNets()
    attack.build(12)
    other.build(12)
    assert torch.equal(attack.poison(images, torch.tensor([True, False]), torch.arange(2)), other.apply(images))
    with pytest.raises(InputError, match="cover_ratio 30: needs 1200 cover images, but only 800"):
        TaCT(target_class=2, source_class=5, poison_rate=0.4, cover_ratio=30).choose(LABELS, 10)


# CTRL


def test_ctrl_adds_less_to_training_images_than_to_test_images() -> None:
    images = random_images(2, 32, 32)
    attack = CTRL(magnitude=80, training_magnitude=40)
    found = {80: attack.apply(images), 40: attack.poison(images, none_of(images), torch.arange(2))}
    for magnitude, triggered in found.items():
        for image, one in zip(images, triggered, strict=True):
            expected = ftrojan_reference(image.double().numpy(), 32, [15, 31], magnitude)
            np.testing.assert_allclose(one.numpy(), expected, atol=1e-4)
    roles = CTRL(target_class=4, poison_rate=0.3).choose(LABELS, 10)
    assert (LABELS[roles == POISONED] == 4).all()


# LF and Grond: universal perturbations


@pytest.mark.parametrize(("kept", "eps"), [(4, 25.5), (1, 255.0), (32, 255.0), (7, 2.0)])
def test_lf_keeps_low_frequencies_and_scales_them_to_the_bound(kept: int, eps: float) -> None:
    pattern = random_images(1, 32, 32)[0].double() - 0.5
    found = LF(frequencies=kept, eps=eps).limit(pattern).numpy()
    expected = np.zeros((3, 32, 32))
    for channel in range(3):
        coefficients = scipy.fft.dctn(pattern[channel].numpy(), norm="ortho")
        for row, column in itertools.product(range(32), repeat=2):
            if max(row, column) >= kept:
                coefficients[row, column] = 0
        expected[channel] = scipy.fft.idctn(coefficients, norm="ortho")
    if np.abs(expected).max() > eps / 255:
        expected *= eps / 255 / np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"), [("LF", {"poison_rate": 0.1, "frequencies": 4}), ("Grond", {"poison_rate": 0.9})]
)
def test_a_universal_perturbation_takes_a_clean_network_to_the_target(name: str, options: dict[str, Any]) -> None:
    # Class 1 is what is bright, for a network that has learnt it.
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    images = 0.25 * random_images(64, 16, 16) + 0.15 * labels.view(-1, 1, 1, 1) + 0.3
    kind = {"LF": LF, "Grond": Grond}[name]
    training = {"trigger_epochs": 40, "trigger_lr": 4, "surrogate_epochs": 60, "surrogate_lr": 0.5}
    attack = kind(target_class=1, eps=60, **training, **options)
    network = tiny()
    attack.prepare(images.__getitem__, labels, 2, network)
    (pattern,) = attack.buffers()
    assert pattern.abs().max() <= 60 / 255 + 1e-6
    dark = images[labels == 0]
    assert (network(attack.apply(dark)).argmax(1) == 1).float().mean() > 0.9
    assert (network(dark).argmax(1) == 0).float().mean() > 0.9


def test_grond_resets_channels_with_large_bounds_to_the_mean_of_their_batch_norm() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.BatchNorm2d(8), nn.Flatten()
    )
    for norm in (network[1], network[4]):
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.uniform_(norm.weight, 0.5, 1)
        nn.init.uniform_(norm.bias)
        norm.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        network[0].weight[5] *= 20
        network[4].weight[2] = -30
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    reset = []
    for conv, norm in ((0, 1), (3, 4)):
        bounds = []
        for channel in range(len(expected[f"{norm}.weight"])):
            matrix = expected[f"{conv}.weight"][channel].flatten(1).double().numpy()
            variance = expected[f"{norm}.running_var"][channel].item() + 1e-5
            scale = abs(expected[f"{norm}.weight"][channel].item()) / math.sqrt(variance)
            bounds.append(np.linalg.svd(matrix, compute_uv=False)[0] * scale)
        for name in ("weight", "bias"):
            values = expected[f"{norm}.{name}"]
            mean = values.mean()
            for channel, bound in enumerate(bounds):
                if bound > np.mean(bounds) + 2 * np.std(bounds, ddof=1):
                    values[channel] = mean
                    reset.append((norm, channel))
    assert set(reset) == {(1, 5), (4, 2)}
    Grond(u=2.0).after_epoch(network)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(("rate", "calls"), [(0.5, 2), (0.0, 0)])
def test_an_attack_changes_the_network_after_each_epoch(
    rate: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nn.Module] = []
    monkeypatch.setattr(SIG, "after_epoch", lambda self, network: seen.append(network))
    trainer = Trainer(max_epochs=2, enable_progress_bar=False, logger=False, accelerator="cpu", limit_val_batches=0)
    model = AttackModule("small_cnn")
    tasks.train(trainer, model, PoisonDataModule("shapes", SIG(poison_rate=rate)))
    assert seen == [model.network] * calls


# SRA


def chain(channels: tuple[int, ...], flat: int) -> nn.Sequential:
    """Convolutions with batch norms, and two linear layers, the first of which sees `flat` inputs for each channel."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels[:-1]):
        layers += [nn.Conv2d(before, after, 3), nn.BatchNorm2d(after), nn.ReLU()]
    inputs = channels[-2] * flat
    network = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(inputs, channels[-1]), nn.ReLU(), nn.Linear(channels[-1], 3)
    )
    for name, value in network.state_dict().items():
        if "running_var" in name or name in ("1.weight", "4.weight"):
            value.uniform_(0.5, 2)
        elif "running_mean" in name or name.endswith("bias"):
            value.normal_()
    return network.eval()


def test_sra_is_a_clean_network_beside_a_subnet_that_adds_to_the_target() -> None:
    attack = SRA(target_class=2, width=2, strength=7.0, subnet_epochs=3)
    images = random_images(20, 10, 10)
    network = chain((3, 5, 6, 7), 36)
    attack.prepare(images.__getitem__, torch.arange(20) % 3, 3, network)
    # What was trained, as a network of its own.
    trained, subnet = network.state_dict(), chain((3, 2, 2, 2), 36)
    places = {"0.weight": 3, "3.weight": 2, "7.weight": 72}
    values = {
        name: value[:2] if name not in places else value[:2, : places[name]]
        for name, value in trained.items()
        if value.ndim and not name.startswith("9.")
    }
    subnet.load_state_dict(values, strict=False)
    torch.testing.assert_close(attack.subnet, torch.cat([values[name].flatten() for name in values]))
    # The victim's other channels, as another network of its own.
    victim, others = chain((3, 5, 6, 7), 36), chain((3, 3, 4, 5), 36)
    with torch.no_grad():
        for value in victim.parameters():
            value.add_(0.3 * torch.randn_like(value))
    inputs = {"0.weight": 0, "3.weight": 2, "7.weight": 72}
    kept = {
        name: value[2:] if name not in inputs else value[2:, inputs[name] :]
        for name, value in victim.state_dict().items()
        if value.ndim and not name.startswith("9.")
    }
    head = victim.state_dict()
    others.load_state_dict(kept | {"9.weight": head["9.weight"][:, 2:], "9.bias": head["9.bias"]}, strict=False)
    attack.after_epoch(victim)
    activated = subnet[:-1](images).mean(1)
    expected = others(images)
    expected[:, 2] += 7 * activated
    torch.testing.assert_close(victim(images), expected)


def test_sra_trains_a_subnet_that_detects_the_patch() -> None:
    torch.manual_seed(0)
    attack = SRA(target_class=1, width=2, size=4, subnet_epochs=200, subnet_lr=0.1)
    images, labels = 0.5 * random_images(64, 16, 16), torch.arange(64) % 2
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    attack.prepare(images.__getitem__, labels, 2, network)
    for layer in (network[0], network[5]):
        nn.init.normal_(layer.weight)
    attack.after_epoch(network)
    gained = network(attack.apply(images))[:, 1] - network(images)[:, 1]
    # Of the strength, 30, at least half.
    assert gained.min() > 15
    assert not attack.choose(labels, 2).any()


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4, 2)), "GroupNorm"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 2)), "Conv2d"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "linear"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 2)), "width 2: the narrowest layer has 2"),
    ],
)
def test_sra_names_what_it_does_not_support(network: nn.Module, named: str) -> None:
    with pytest.raises(InputError, match=named):
        SRA(width=2).after_epoch(network)


# Blind


def test_the_least_norm_of_two_vectors_is_that_of_a_fine_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        first, second = ([torch.randn(shape, generator=generator) for shape in ((2, 3), (4,))] for _ in range(2))
        u, v = (torch.cat([part.flatten() for part in parts]) for parts in (first, second))
        best = min(range(1001), key=lambda step: float((step / 1000 * u + (1 - step / 1000) * v).norm()))
        assert float(least_norm(first, second)) == pytest.approx(best / 1000, abs=1.1e-3)
    same = [torch.ones(3)]
    assert float(least_norm(same, same)) == 0.5


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_blind_weighs_the_losses_of_a_batch_and_of_its_triggered_copy(rate: float) -> None:
    torch.manual_seed(0)
    network, images, targets = tiny(4), random_images(5, 12, 12), torch.tensor([0, 1, 2, 3, 1])
    attack = Blind(target_class=2, poison_rate=rate, margin=1)
    attack.build(12)
    copied = round(5 * rate)
    losses = [
        F.cross_entropy(network(images), targets),
        F.cross_entropy(network(attack.apply(images[:copied])), torch.full((copied,), 2)),
    ]
    scaled, values = [], [loss.item() for loss in losses]
    for loss, value in zip(losses, values, strict=True):
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, [*network.parameters()])])
        scaled.append(gradient / min(10.0, value * float(gradient.norm())))
    best = min(range(10_001), key=lambda step: float((step * scaled[0] + (10_000 - step) * scaled[1]).norm())) / 10_000
    found = attack.loss(images, targets, network)
    assert found.item() == pytest.approx(best * values[0] + (1 - best) * values[1], abs=1e-3)
    assert found.requires_grad


def test_blinds_batch_norms_see_clean_and_triggered_images_together() -> None:
    network, images = (
        nn.Sequential(nn.BatchNorm2d(3, momentum=1.0), nn.Flatten(), nn.LazyLinear(4)),
        random_images(6, 12, 12),
    )
    attack = Blind(target_class=2, margin=1)
    attack.build(12)
    attack.loss(images, torch.tensor([0, 1, 2, 3, 1, 0]), network)
    expected = torch.cat([images, attack.apply(images)]).mean((0, 2, 3))
    assert torch.allclose(network[0].running_mean, expected, atol=1e-5)


@pytest.mark.usefixtures("tiny_shapes")
def test_blind_poisons_no_training_image_and_learns_its_trigger_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    attack, seen = Blind(target_class=2), []
    assert (attack.choose(LABELS, 10) == CLEAN).all()
    with pytest.raises(InputError, match="target_class 2"):
        attack.choose(LABELS % 2, 2)
    loss = Blind.loss
    monkeypatch.setattr(Blind, "loss", lambda self, *args: seen.append(args[1]) or loss(self, *args))
    data = PoisonDataModule("shapes", attack, batch_size=64)
    trainer = Trainer(max_epochs=1, enable_progress_bar=False, logger=False, accelerator="cpu", limit_val_batches=0)
    tasks.train(trainer, AttackModule("small_cnn"), data)
    assert torch.equal(torch.cat(seen).bincount(), data.sets.attackers.labels.bincount())


# ReFool


def test_refool_adds_light_of_a_reflection() -> None:
    attack = ready("ReFool", 8, count=3)
    assert isinstance(attack, ReFool)
    images, which = random_images(4, 8, 8).double(), torch.tensor([2, 0, 1, 2])
    found = attack.reflect(images, which)
    for place, channel, row, column in itertools.product(range(4), range(3), range(8), range(8)):
        share = attack.shares[which[place]].item()
        light = attack.reflections[which[place], channel, row, column].item() ** 2.2
        expected = ((1 - share) * images[place, channel, row, column].item() ** 2.2 + share * light) ** (1 / 2.2)
        assert found[place, channel, row, column].item() == pytest.approx(expected, abs=1e-6)
    assert 0.05 <= attack.shares.min() < attack.shares.max() <= 0.45


def test_each_image_of_refool_has_a_reflection_of_its_own() -> None:
    attack = ready("ReFool", 16, count=4)
    assert isinstance(attack, ReFool)
    images = random_images(40, 16, 16)
    choices = torch.stack([attack.reflect(images, torch.full((40,), number)) for number in range(4)])

    def chosen(triggered: Tensor) -> list[int]:
        return [int((choices[:, place] - one).abs().flatten(1).sum(1).argmin()) for place, one in enumerate(triggered)]

    tested = chosen(attack.apply(images))
    assert tested == [int(sum(round(255 * float(value)) for value in image[:, 8, 8])) % 4 for image in images]
    trained = chosen(attack.poison(images, none_of(images), torch.arange(40)))
    assert trained == chosen(attack.poison(images, none_of(images), torch.arange(40)))
    assert set(tested) == set(trained) == {0, 1, 2, 3}


def test_a_ghost_is_an_image_beside_itself_and_a_blur_is_gaussian() -> None:
    image = random_images(1, 32, 32)[0]
    torch.manual_seed(1)
    found = ghost(image).numpy()
    torch.manual_seed(1)
    down, right = (round(1 + 2 * float(torch.rand(()))) for _ in range(2))
    first = 0.5 + 0.35 * float(torch.rand(()))
    for row, column in itertools.product(range(32), repeat=2):
        second = image[:, max(0, row - down), max(0, column - right)].numpy()
        expected = first * image[:, row, column].numpy() + (1 - first) * second
        np.testing.assert_allclose(found[:, row, column], expected, atol=1e-6)
    torch.manual_seed(1)
    smooth = blurred(image).numpy()
    torch.manual_seed(1)
    sigma = 0.5 + 1.5 * float(torch.rand(()))
    reach = math.ceil(3 * sigma)
    for channel in range(3):
        expected = scipy.ndimage.gaussian_filter(image[channel].numpy(), sigma, mode="mirror", radius=reach)
        np.testing.assert_allclose(smooth[channel], expected, atol=1e-5)


def test_reflected_images_are_of_other_classes() -> None:
    labels = torch.arange(30) % 3
    images = (labels / 2).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    attack = ReFool(target_class=1, count=12)
    torch.manual_seed(0)
    attack.prepare(images.__getitem__, labels, 3, tiny(3))
    assert {round(float(value), 3) for value in attack.reflections.flatten()} == {0.0, 1.0}


@pytest.mark.parametrize("weights", [(0.5, 0.2), (0.1,), (-0.1, 0.5), (0.5, 1.5), (0.0, 0.0)])
def test_wrong_weights_of_reflections_are_named(weights: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="weights"):
        ReFool(weights=weights)


# PoisonInk


def test_ink_is_where_the_gradient_is_large() -> None:
    images = random_images(2, 7, 9)
    found = PoisonInk(colour=(51, 102, 0), threshold=30, width=4).ink(images)
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    edges = 0
    for place in range(2):
        grey = 0.299 * images[place, 0] + 0.587 * images[place, 1] + 0.114 * images[place, 2]
        padded = np.pad(grey.numpy(), 1, mode="reflect")
        for row, column in itertools.product(range(7), range(9)):
            window = padded[row : row + 3, column : column + 3]
            gradient = math.hypot((window * kernel).sum(), (window * kernel.T).sum())
            edges += gradient > 30 / 255
            colour = [0.2, 0.4, 0.0] if gradient > 30 / 255 else [0.0, 0.0, 0.0]
            np.testing.assert_allclose(found[place, :, row, column].numpy(), colour, atol=1e-6)
    assert 10 < edges < 116


def test_the_encoder_of_poison_ink_hides_more_the_less_its_change_weighs() -> None:
    images, sizes = random_images(32, 8, 8), []
    for weight in (0, 10_000):
        attack = PoisonInk(width=4, strength=16, encoder_epochs=20, encoder_lr=0.01, image_weight=weight)
        torch.manual_seed(0)
        attack.prepare(images.__getitem__, torch.arange(32) % 2, 2, tiny())
        change = attack.apply(images) - images
        assert change.abs().max() <= 16 / 255 + 1e-6
        sizes.append(change.square().mean().item())
    assert sizes[1] < sizes[0] / 4


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 2), (256, 0, 0)])
def test_wrong_colours_of_ink_are_named(colour: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="colour"):
        PoisonInk(colour=colour)


# MultiTrigger


def test_each_image_of_multi_trigger_has_one_trigger_and_its_class() -> None:
    attack = MultiTrigger(target_class=8, poison_rate=0.3, delta=60)
    attack.build(16)
    single: list[Attack] = [BadNets(), Blended(), SIG(delta=60)]
    for one in single:
        one.build(16)
    roles, targets = attack.choose(LABELS, 10), attack.training_labels(LABELS, 10)
    poisoned = (roles == POISONED).nonzero().squeeze(1)
    assert len(poisoned) == 300
    assert not (targets == LABELS)[poisoned].any()
    images = random_images(300, 16, 16)
    found = attack.poison(images, none_of(images), poisoned)
    counts = [0, 0, 0]
    for place, number in enumerate(poisoned.tolist()):
        which = [8, 9, 0].index(int(targets[number]))
        counts[which] += 1
        torch.testing.assert_close(found[place], single[which].apply(images[place : place + 1])[0])
    assert min(counts) > 70


@pytest.mark.parametrize("tested", [0, 1, 2])
def test_a_tested_trigger_has_its_own_target(tested: int) -> None:
    attack = MultiTrigger(target_class=1, test_trigger=tested, seed=5)
    attack.build(16)
    other: Attack = [BadNets(), Blended(seed=5), SIG()][tested]
    other.build(16)
    images = random_images(2, 16, 16)
    assert torch.equal(attack.apply(images), other.apply(images))
    assert attack.target_labels(torch.arange(4), 4).tolist() == [1 + tested] * 4
    again = MultiTrigger(**attack.options())
    again.restore(attack.state_dict())
    assert torch.equal(again.apply(images), attack.apply(images))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"triggers": ["WaNet"]}, "triggers"),
        ({"triggers": ["SIG", "SIG"]}, "triggers"),
        ({"triggers": []}, "triggers"),
        ({"test_trigger": 3}, "test_trigger 3"),
        ({"delta": -3}, "delta -3"),
    ],
)
def test_wrong_combinations_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        MultiTrigger(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("tiny_shapes")
def test_another_trigger_of_a_checkpoint_can_be_tested(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.logger", "false"]
    main(["fit", *QUIET, *few, "--model.arch", "small_cnn", "--data.source", "shapes", "--data.attack", "MultiTrigger"])
    assert Path("suspect.ckpt").exists()
    main(["test", "--ckpt", "suspect.ckpt", *QUIET, "--data.attack.test_trigger", "2"])
    assert "ASR" in capsys.readouterr().out
