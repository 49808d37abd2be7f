"""The cleansing methods NC, EP, BAN, TSBD, BTIDBF and UNIT against slow, obvious references, on tiny networks."""

import copy
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from bdclean import InputError, cleansing
from bdclean.cleansing import ep, nc, steps, tsbd
from bdclean.data.batch import Batch
from tests.conftest import cleanse
from tests.test_cleansing_mathematics import (
    CLASSES,
    SIZE,
    batches,
    convnet,
    entropy,
    equal,
    flat,
    gradients,
    grouped,
    normalised,
    random_images,
    run,
    slopes,
    state,
    stirred,
    suspect_of,
    unit,
)

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1)


# NC


class Cornered(nn.Module):
    """Predicts class 2 for images with a bright top left corner, else one of the others by the mean of a colour."""

    def forward(self, images: Tensor) -> Tensor:
        colours = 4 * images.mean((2, 3))
        corner = 20 * images[:, :, :2, :2].mean((1, 2, 3)) - 12
        return torch.cat([colours[:, :2], corner[:, None], colours[:, 2:]], 1)


def test_nc_search_against_a_plain_loop() -> None:
    images, network = random_images(40).double() / 2, Cornered().double()
    found = nc.invert(network, images, 2, 24, 0.9)
    a, b = torch.zeros(1, SIZE, SIZE).double(), torch.zeros(3, SIZE, SIZE).double()
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in (a, b)]
    cost, wins, losses, steps = 0.001, 0, 0, 0
    best: tuple[float, Tensor] | None = None
    for _ in range(24):
        right = 0
        for part in (images[:20], images[20:]):
            a.requires_grad_(), b.requires_grad_()
            m, p = 0.5 * torch.tanh(a) + 0.5, 0.5 * torch.tanh(b) + 0.5
            logits = network(part * (1 - m) + m * p)
            loss = entropy(logits, torch.full((20,), 2)) + cost * m.sum()
            slopes = torch.autograd.grad(loss, (a, b))
            a, b, steps = a.detach(), b.detach(), steps + 1
            for one, slope, (mean, square) in zip((a, b), slopes, moments, strict=True):
                mean.mul_(0.5).add_(0.5 * slope)
                square.mul_(0.9).add_(0.1 * slope**2)
                one -= 0.1 * (mean / (1 - 0.5**steps)) / ((square / (1 - 0.9**steps)).sqrt() + 1e-8)
            right += sum(int(row.argmax()) == 2 for row in logits)
        m, p = 0.5 * torch.tanh(a) + 0.5, 0.5 * torch.tanh(b) + 0.5
        if right >= 36 and (best is None or m.sum() < best[0]):
            best = float(m.sum()), torch.cat([m, m * p])
        wins, losses = (wins + 1, 0) if right >= 36 else (0, losses + 1)
        if wins == 5:
            cost, wins = 2 * cost, 0
        if losses == 5:
            cost, losses = cost / 2**1.5, 0
    assert best is not None
    close(found[0], best[1])


def test_nc_keeps_the_last_trigger_if_none_is_successful_and_stops_when_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(8)
    never = nc.invert(lambda x: torch.zeros(len(x), 3) + 0 * x.sum(), images, 1, 3, 0.5)
    # The cross-entropy has no slope, so only the norm of the mask falls.
    assert float(never[0, 0].max()) < 0.5
    passes: list[int] = []

    def always(x: Tensor) -> Tensor:
        passes.append(len(x))
        return torch.tensor([[0.0, 9.0]]).expand(len(x), -1) + 0 * x.sum()

    monkeypatch.setattr(nc, "SEARCH_LR", 0.0)
    nc.invert(always, images, 1, 80, 0.5)
    assert len(passes) == 1 + nc.STALE_ROUNDS


def test_anomaly_indices_against_the_definition() -> None:
    norms = [9.0, 11.0, 10.0, 2.0, 12.0, 13.0, 8.0, 10.5]
    middle = statistics.median(norms)
    mad = statistics.median(abs(norm - middle) for norm in norms)
    close(nc.anomaly_indices(torch.tensor(norms)), torch.tensor([(middle - norm) / (1.4826 * mad) for norm in norms]))
    assert not (nc.anomaly_indices(torch.full((4,), 3.0)) > 0).any()


@pytest.mark.parametrize("labels", [False, True])
def test_nc_trains_on_some_images_with_the_trigger_and_the_targets_without_it(labels: bool) -> None:
    cleanser = unit(cleansing.NC, convnet(), supervision="labels" if labels else "teacher", share=0.4).train()
    images, wanted = random_images().double(), torch.arange(12) % CLASSES
    masks, patterns = torch.rand(2, 1, SIZE, SIZE).double(), torch.rand(2, 3, SIZE, SIZE).double()
    cleanser.triggers = torch.cat([masks, masks * patterns], 1)
    triggered = images.clone()
    for number in range(5):
        m, p = (values[0 if number < 3 else 1] for values in (masks, patterns))
        triggered[number] = (1 - m) * images[number] + m * p
    targets = wanted if labels else cleanser.teacher(normalised(images)).softmax(1)
    reference = copy.deepcopy(cleanser.network).train()
    loss = cleanser.training_step(Batch(images, wanted, wanted), 0)
    close(loss, entropy(reference(normalised(triggered)), targets))


class Planted(nn.Module):
    """Predicts the class whose direction the mean colour is nearest to, plus class 1 for a bright pixel."""

    def __init__(self) -> None:
        super().__init__()
        directions = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
        self.colours, self.backdoor = nn.Parameter(20 * directions), nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, :, 0, 0].mean(1)
        return images.mean((2, 3)) @ self.colours.T + self.backdoor * bright[:, None] * torch.eye(CLASSES)[1]


def test_nc_finds_a_planted_trigger_and_unlearns_it() -> None:
    suspect = suspect_of(Planted())
    cleanser = run(cleansing.NC, suspect, 8, lr=100.0, threshold=1.0)
    assert cleanser.suspicious.nonzero().flatten().tolist() == [1]
    assert float(cleanser.norms[1]) < 2
    triggered = random_images(16, seed=3)
    triggered[:, :, 0, 0] = 1
    assert (suspect(triggered).argmax(1) == 1).float().mean() > 0.9
    assert (cleanser(triggered).argmax(1) == 1).float().mean() < 0.5
    assert cleanser.describe()[0].rows[0][::3] == ("1", "yes")


def test_nc_returns_the_suspect_if_no_class_is_suspicious() -> None:
    suspect = suspect_of(stirred(convnet(), amount=0.02))
    cleanser = run(cleansing.NC, suspect, threshold=50.0, rounds=2)
    assert equal(state(cleanser.network), state(suspect.network))
    assert "No class" in cleanser.describe()[1]


def test_nc_trains_on_as_many_images_as_the_paper() -> None:
    cleanser = unit(cleansing.NC, convnet())
    assert [cleanser.epochs_of(images) for images in (0, 100, 500, 2500, 50_000)] == [5000, 50, 10, 2, 1]


# EP


def test_entropies_against_a_histogram_by_hand() -> None:
    values = torch.randn(5, 30).double()
    values[1, :15] -= 40
    values[2] = 7.0
    found = ep.entropies(values, 0.5)
    for row, entropy_of_row in zip(values.tolist(), found.tolist(), strict=True):
        mean, std = statistics.mean(row), statistics.stdev(row)
        if std == 0:
            assert math.isnan(entropy_of_row)
            continue
        standard = [(value - mean) / std for value in row]
        counts: dict[int, int] = {}
        for value in standard:
            place = int((value - min(standard)) / 0.5)
            counts[place] = counts.get(place, 0) + 1
        expected = -sum(count / 30 * math.log(count / 30 / 0.5) for count in counts.values())
        assert entropy_of_row == pytest.approx(expected)
    assert int(found.nan_to_num(9).argmin()) == 1


def test_entropy_of_many_samples_is_that_of_their_distribution() -> None:
    normal = ep.entropies(torch.randn(1, 200_000), 0.05)
    assert float(normal) == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.01)


def test_ep_prunes_channels_with_two_groups_of_activations() -> None:
    network = stirred(grouped())
    cleanser = cleansing.EP(suspect_of(network), u=0.8, width=0.3)
    parts = random_images(40).split((17, 20, 3))
    cleanser.images = batches(*parts)  # type: ignore[method-assign]
    cleanser.prepare()
    expected, reference, images = state(network), copy.deepcopy(network).eval(), normalised(torch.cat(parts))
    for place, norm in ((0, 1), (3, 4), (6, 6), (9, 9)):
        outputs = reference[: place + 1](images).detach()
        largest = torch.stack([image.reshape(len(image), -1).max(1).values for image in outputs])
        found = ep.entropies(largest.T, 0.3).tolist()
        usual = [value for value in found if not math.isnan(value)]
        border = statistics.mean(usual) - 0.8 * statistics.stdev(usual)
        gone = [channel for channel, value in enumerate(found) if value < border]
        assert gone
        expected[f"{norm}.weight"][gone] = 0
    close(state(cleanser.network), expected, rtol=0, atol=0)


# BAN


@pytest.mark.parametrize("steps", [1, 2])
def test_ban_adds_the_loss_under_the_worst_noise(steps: int) -> None:
    cleanser = unit(cleansing.BAN, convnet(), eps=0.2, steps=steps, robust=0.7).train()
    images = random_images().double()
    targets = cleanser.teacher(normalised(images)).softmax(1)
    before = state(cleanser.network)

    def by_hand(noise: Tensor) -> Tensor:
        copied = copy.deepcopy(cleanser.network).train()
        copied.load_state_dict(before)
        with torch.no_grad():
            for norm, count, first in ((1, 6, 0), (4, 8, 6)):
                for channel in range(count):
                    copied[norm].weight[channel] *= 1 + noise[first + channel]
                    copied[norm].bias[channel] *= 1 + noise[14 + first + channel]
        return entropy(copied(normalised(images)), targets)

    torch.manual_seed(3)
    loss = cleanser.training_step(Batch(images), 0)
    loss.backward()
    torch.manual_seed(3)
    noise = torch.cat([torch.empty(count).double().uniform_(-0.2, 0.2) for count in (6, 8, 6, 8)])
    for _ in range(steps):
        noise = (noise + 0.2 / steps * slopes(lambda n: by_hand(n).detach(), noise).sign()).clamp(-0.2, 0.2)
    clean = entropy(copy.deepcopy(cleanser.network).train()(normalised(images)), targets)
    close(loss, clean + 0.7 * by_hand(noise))
    after = state(cleanser.network)
    # One pass without noise updates the running statistics.
    assert int(after["1.num_batches_tracked"]) == 1

    def whole(weight: Tensor) -> Tensor:
        copied = copy.deepcopy(cleanser.network).train()
        copied.load_state_dict({**before, "8.weight": weight})
        noisy = copy.deepcopy(copied)
        for norm, count, first in ((1, 6, 0), (4, 8, 6)):
            noisy[norm].weight.data *= 1 + noise[first : first + count]
            noisy[norm].bias.data *= 1 + noise[14 + first : 14 + first + count]
        return (
            entropy(copied(normalised(images)), targets) + 0.7 * entropy(noisy(normalised(images)), targets)
        ).detach()

    head = cleanser.network[8].weight
    close(head.grad, slopes(whole, head.detach().clone()), atol=1e-6, rtol=1e-4)


# TSBD


@pytest.mark.parametrize(("neurons", "subweights"), [(0.5, 0.6), (0.25, 1.0), (1.0, 0.1), (0.0, 0.5)])
def test_reset_weights_against_sorted_lists(neurons: float, subweights: float) -> None:
    changes = [torch.rand(3, 2, 2, 2), 2 * torch.rand(5, 4)]
    ranked = sorted(
        ((float(row.sum()), layer, place) for layer, change in enumerate(changes) for place, row in enumerate(change)),
        reverse=True,
    )[: int(neurons * 8)]
    theirs = sorted(
        (
            (float(value), layer, place, number)
            for _, layer, place in ranked
            for number, value in enumerate(changes[layer][place].flatten())
        ),
        reverse=True,
    )
    expected = [torch.zeros_like(change, dtype=torch.bool) for change in changes]
    for _, layer, place, number in theirs[: int(subweights * len(theirs))]:
        expected[layer][place].view(-1)[number] = True
    close(tsbd.reset_weights(changes, neurons, subweights), expected)


def test_tsbd_ascends_until_chance_and_resets_weights_of_the_suspect() -> None:
    suspect = suspect_of(stirred(convnet()))
    cleanser = cleansing.TSBD(suspect, supervision="labels", unlearning_lr=0.01, unlearning_epochs=2).train()
    images, labels = random_images(), torch.arange(12) % CLASSES
    # Never at chance: the labels are the predictions.
    reference = copy.deepcopy(suspect.network).train()
    cleanser.images = batches(images[:8], images[8:], targets=[labels[:8], labels[8:]])  # type: ignore[method-assign]
    cleanser.num_classes = 10**6
    cleanser.unlearn()
    velocity = [torch.zeros_like(value) for value in reference.parameters()]
    for _ in range(2):
        for some in (slice(0, 8), slice(8, 12)):
            loss = entropy(reference(normalised(images[some])), labels[some])
            found = torch.autograd.grad(loss, list(reference.parameters()))
            with torch.no_grad():
                for value, speed, slope in zip(reference.parameters(), velocity, found, strict=True):
                    speed.mul_(0.9).add_(slope)
                    value += 0.01 * speed
    close(state(cleanser.network), state(reference), atol=1e-5, rtol=1e-5)
    cleanser._trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda masks: masks))  # type: ignore[assignment]
    cleanser.prepare()
    expected, layers = state(suspect.network), ("0.weight", "3.weight")
    for name, mask in zip(layers, cleanser.reset, strict=True):
        expected[name][mask] = 0
    close(state(cleanser.network), expected, rtol=0, atol=0)
    neurons = int(0.15 * 14)
    assert sum(int(mask.flatten(1).any(1).sum()) for mask in cleanser.reset) <= neurons
    assert sum(int(mask.sum()) for mask in cleanser.reset) > 0
    assert [row[0] for row in cleanser.describe()[0].rows] == list(layers)  # type: ignore[union-attr]


def test_tsbd_stops_unlearning_at_chance() -> None:
    cleanser = cleansing.TSBD(suspect_of(convnet()), unlearning_epochs=50)
    passes: list[int] = []

    def images() -> Iterator[tuple[Tensor, Tensor]]:
        passes.append(1)
        # The wrong class for all images.
        pixels = random_images()
        yield pixels, (cleanser(pixels).argmax(1) + 1) % CLASSES

    cleanser.images = images  # type: ignore[assignment]
    cleanser.unlearn()
    assert len(passes) == 1


def test_tsbd_mixes_the_gradients_here_and_uphill() -> None:
    cleanser = unit(cleansing.TSBD, convnet(), radius=0.3, alpha=0.6).train()
    images = random_images().double()
    targets = cleanser.teacher(normalised(images)).softmax(1)
    here = copy.deepcopy(cleanser.network).train()
    entropy(here(normalised(images)), targets).backward()
    first = flat(value.grad for value in here.parameters())
    there = copy.deepcopy(cleanser.network).train()
    vector_to_parameters(flat(there.parameters()) + 0.3 * first / first.norm(), there.parameters())
    entropy(there(normalised(images)), targets).backward()
    second = flat(value.grad for value in there.parameters())
    cleanser.training_step(Batch(images), 0).backward()
    close(gradients(cleanser.network), 0.4 * first + 0.6 * second)
    close(cleanser.network[1].running_mean, here[1].running_mean)


# BTIDBF


def body_and_head(network: nn.Module, images: Tensor) -> tuple[Tensor, Any]:
    """The input of the head of a `convnet`, and the head."""
    layers = list(network.children())
    return nn.Sequential(*layers[:-1])(normalised(images)), layers[-1]


def test_btidbf_reads_and_masks_the_input_of_the_head() -> None:
    cleanser = unit(cleansing.BTIDBF, convnet()).eval()
    images, mask = random_images().double(), torch.rand(8).double()
    features, head = body_and_head(cleanser.network, images)
    for scales, one in ((torch.ones(8).double(), None), (mask, mask)):
        logits, found = cleanser.through(images, one)
        close(found, features)
        close(logits, head(scales * features))


def test_btidbf_mask_against_a_plain_loop() -> None:
    cleanser = unit(cleansing.BTIDBF, convnet(), mask_epochs=4, mask_lr=0.3).eval()
    images, labels = random_images(20).double(), torch.arange(20) % CLASSES
    torch.manual_seed(5)
    found = cleanser.decouple([(images[:12], labels[:12]), (images[12:], labels[12:])])
    assert all(value.grad is None for value in cleanser.network.parameters())
    torch.manual_seed(5)
    raw = torch.randn(8).double().requires_grad_()
    optimizer = torch.optim.Adam([raw], 0.3)
    for _ in range(4):
        for some in (slice(0, 12), slice(12, 20)):
            features, head = body_and_head(cleanser.network, images[some])
            mask = 0.5 + 0.5 * raw.tanh()
            loss = entropy(head(mask * features), labels[some]) - entropy(head((1 - mask) * features), labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    close(found, (0.5 + 0.5 * raw.tanh()).detach())


@pytest.mark.parametrize(("bound", "target"), [(9.0, None), (9.0, 2), (0.0, None), (0.0, 1)])
def test_btidbf_inversion_loss(bound: float, target: int | None) -> None:
    cleanser = unit(cleansing.BTIDBF, convnet(), bound=bound).eval()
    cleanser.target = target
    images, mask = random_images().double(), torch.rand(8).double()
    changed = (images + cleanser.generator(images)).clamp(0, 1)
    (z, head), (w, _) = (body_and_head(cleanser.network, one) for one in (images, changed))
    if bound:
        expected = 0.01 * ((mask * (w - z)) ** 2).mean() - (((1 - mask) * (w - z)) ** 2).mean()
    else:
        expected = ((normalised(changed) - normalised(images)) ** 2).mean()
    if target is not None:
        expected = expected + entropy(head(w), torch.full((12,), target))
    close(cleanser.inversion_loss(images, mask), expected)


def test_btidbf_inverts_towards_other_features_and_names_the_commonest_class() -> None:
    cleanser = unit(cleansing.BTIDBF, convnet(), mask_epochs=2, generator_epochs=15, bound=50.0).eval()
    images = random_images(24).double()
    parts = [(images, cleanser.teach(images).argmax(1))]

    def distance() -> float:
        (z, _), (w, _) = (body_and_head(cleanser.network, one) for one in (images, cleanser.trigger(images)))
        return float(((w - z) ** 2).mean().detach())

    before, weights = distance(), state(cleanser.network)
    cleanser.invert(parts)
    assert distance() > 2 * before
    assert equal(state(cleanser.network), weights)
    predicted = cleanser(cleanser.trigger(images)).argmax(1).tolist()
    assert cleanser.target == max(range(CLASSES), key=predicted.count)
    assert not any(value.requires_grad for value in cleanser.generator.parameters())


def test_btidbf_unlearns_the_generated_images() -> None:
    cleanser = unit(cleansing.BTIDBF, convnet(), share=0.2, features=0.7).train()
    images = random_images(15).double()
    targets = cleanser.teacher(normalised(images)).softmax(1)
    changed = torch.cat([cleanser.trigger(images[:4]), images[4:]])
    reference = copy.deepcopy(cleanser.network).train()
    (w, head), (z, _) = (body_and_head(reference, one) for one in (changed, images))
    close(cleanser.training_step(Batch(images), 0), entropy(head(w), targets) + 0.7 * ((w - z) ** 2).mean())


@pytest.mark.parametrize(("count", "read"), [(1, 1), (4, 1), (5, 2), (10, 3), (11, 3)])
def test_first_batches_reads_no_more_batches_than_it_needs(count: int, read: int) -> None:
    left = batches(*random_images(10).split((4, 4, 2)))()
    assert sum(len(images) for images, _ in steps.first_batches(left, count)) == (4, 8, 10)[read - 1]
    assert len(list(left)) == 3 - read


def test_btidbf_inverts_at_the_beginning_of_each_round() -> None:
    begun: list[tuple[int, bool, int]] = []

    def watch(cleanser: Any) -> None:
        def invert(parts: Any) -> None:
            begun.append((cleanser.current_epoch, cleanser.network.training, sum(len(images) for images, _ in parts)))
            cleanser.target = 0

        cleanser.invert = invert

    cleanser = run(cleansing.BTIDBF, suspect_of(convnet()), 7, watch, rounds=3)
    assert begun == [(0, False, 20), (2, False, 20), (4, False, 20)]
    assert cleanser.target == 0


# UNIT


def activations(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The outputs of both ReLUs of a `convnet`."""
    layers = list(network.children())
    first = nn.Sequential(*layers[:3])(normalised(images))
    return [first, nn.Sequential(*layers[3:6])(first)]


def test_unit_bounds_start_at_the_mean_and_deviations_of_activations() -> None:
    cleanser = unit(cleansing.UNIT, convnet()).eval()
    images = random_images(10).double()
    found = cleanser.clipped.measure([(images[:7], images), (images[7:], images)], 2.5)
    for bound, values in zip(found, activations(cleanser.teacher, images), strict=True):
        close(bound.double(), values.mean(0) + 2.5 * values.std(0, unbiased=False), rtol=1e-5, atol=1e-5)


def clipped(network: nn.Module, images: Tensor, bounds: list[Tensor]) -> Tensor:
    """Logits of a `convnet` in eval mode whose activations are clipped behind the ReLUs."""
    layers = list(network.eval().children())
    x = normalised(images)
    for part, bound in zip((layers[:3], layers[3:6]), bounds, strict=True):
        x = torch.minimum(nn.Sequential(*part)(x), bound)
    return nn.Sequential(*layers[6:])(x)


def test_unit_clips_before_the_activation_as_after_it() -> None:
    cleanser = unit(cleansing.UNIT, convnet()).eval()
    images = random_images().double()
    bounds = [values.mean(0) for values in activations(cleanser.teacher, images)]
    cleanser.clipped.bounds = bounds
    found = cleanser.clipped(images)
    close(found, clipped(cleanser.teacher, images, bounds))
    assert (found - cleanser.teach(images)).abs().min() > 1e-6


@pytest.mark.parametrize("tolerance", [0.0, 30.0])
def test_unit_tightens_as_a_plain_loop_does(tolerance: float) -> None:
    # A large rate, so that the clipping soon costs predictions.
    cleanser = unit(cleansing.UNIT, convnet(), bound_steps=25, bound_lr=0.05, tolerance=tolerance).eval()
    images = random_images(40).double()
    classes = cleanser.teach(images).argmax(1)
    parts = [(images[:13], classes[:13]), (images[13:30], classes[13:30])]
    found = cleanser.tighten(parts, [(images[30:], classes[30:])])
    raw = [(v.mean(0) + 4 * v.std(0, unbiased=False)).detach() for v in activations(cleanser.teacher, images[:30])]
    raw = [one.float().double().requires_grad_() for one in raw]
    optimizer = torch.optim.Adam(raw, 0.05, betas=(0.5, 0.9))
    cost, good, bad, best, smallest = 1e-3, 0, 0, [one.detach().clone() for one in raw], math.inf
    costs = []
    for _ in range(25):
        bounds = [one.clamp(min=0) for one in raw]
        loss = entropy(clipped(cleanser.teacher, images[:30], bounds), classes[:30])
        loss = loss + cost * sum(one.mean() for one in bounds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bounds = [one.detach().clamp(min=0) for one in raw]
        wrong = clipped(cleanser.teacher, images[30:], bounds).argmax(1) != classes[30:]
        size = sum(float(one.mean()) for one in bounds)
        if 100 * float(wrong.double().mean()) <= tolerance:
            good, bad = good + 1, 0
            if size < smallest:
                best, smallest = bounds, size
        else:
            good, bad = 0, bad + 1
        if good == 5:
            cost, good = 2 * cost, 0
        if bad == 5:
            cost, bad = cost / 2**1.5, 0
        costs.append(cost)
    assert len({*costs}) > 2
    for bound, expected in zip(found, best, strict=True):
        close(bound.double(), expected, atol=1e-4, rtol=1e-4)


def test_unit_perturbs_towards_the_difference_and_distils_the_clipped_suspect() -> None:
    cleanser = unit(cleansing.UNIT, convnet(), eps=2.0, steps=5).train()
    images = random_images().double()
    classes = cleanser.teach(images).argmax(1)
    cleanser.clipped.bounds = [values.mean(0) for values in activations(cleanser.teacher, images)]

    def differences(pixels: Tensor) -> Tensor:
        return entropy(cleanser(pixels), classes) - entropy(cleanser.clipped(pixels), classes)

    d = cleanser.perturb(images, classes)
    assert float(d.flatten(1).norm(dim=1).max()) <= 2.0 * SIZE / 32 + 1e-6
    assert 0 <= float((images + d).min()) <= float((images + d).max()) <= 1
    assert float((differences(images + d) - differences(images)).detach()) > 0.05
    cleanser.perturb = lambda images, classes: d
    loss = cleanser.training_step(Batch(images), 0)
    expected = sum(
        entropy(clipped(cleanser.network, pixels, [torch.tensor(math.inf)] * 2), targets.softmax(1))
        for pixels, targets in ((one, cleanser.clipped(one).detach()) for one in (images, images + d))
    )
    close(loss, expected)


# Options


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        (cleansing.NC, "rounds", 0),
        (cleansing.NC, "success", 1.5),
        (cleansing.NC, "threshold", -1.0),
        (cleansing.NC, "share", 2.0),
        (cleansing.EP, "u", -1.0),
        (cleansing.EP, "width", 0.0),
        (cleansing.BAN, "eps", -0.1),
        (cleansing.BAN, "steps", -1),
        (cleansing.BAN, "robust", -2.0),
        (cleansing.BTIDBF, "rounds", 0),
        (cleansing.BTIDBF, "mask_epochs", 0),
        (cleansing.BTIDBF, "generator_epochs", 0),
        (cleansing.BTIDBF, "lr", 0.0),
        (cleansing.BTIDBF, "bound", -1.0),
        (cleansing.BTIDBF, "share", 1.5),
        (cleansing.BTIDBF, "features", -1.0),
        (cleansing.TSBD, "neurons", 1.5),
        (cleansing.TSBD, "subweights", -0.5),
        (cleansing.TSBD, "alpha", 2.0),
        (cleansing.TSBD, "radius", -1.0),
        (cleansing.TSBD, "unlearning_lr", 0.0),
        (cleansing.TSBD, "unlearning_epochs", 0),
        (cleansing.UNIT, "deviations", -1.0),
        (cleansing.UNIT, "bound_steps", -1),
        (cleansing.UNIT, "bound_lr", 0.0),
        (cleansing.UNIT, "tolerance", 101.0),
        (cleansing.UNIT, "lr", 0.0),
        (cleansing.UNIT, "eps", -1.0),
        (cleansing.UNIT, "steps", -1),
    ],
)
def test_a_wrong_option_is_named(method: type[Any], option: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{option} {value}: must be"):
        method(suspect_of(convnet()), **{option: value})


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("NC", ["--method.rounds", "2", "--method.threshold", "0"]),
        ("BAN", []),
        ("TSBD", ["--method.unlearning_epochs", "2"]),
        ("UNIT", ["--method.bound_steps", "2"]),
        ("BTIDBF", ["--method.rounds", "1", "--method.mask_epochs", "1", "--method.generator_epochs", "1"]),
    ],
)
def test_methods_train_with_labels_from_the_command_line(name: str, options: list[str], tiny_suspect: Path) -> None:
    length = ["--trainer.max_epochs", "2", "--data.num_unlabeled", "40"]
    report = cleanse(tiny_suspect, "--method", name, "--method.supervision", "labels", *length, *options)
    assert report["method"] == name
    assert report["options"]["supervision"] == "labels"
