"""The cleansing methods NC, EP, BAN, TSBD, UNIT and BTIDBF against slow, obvious references, on tiny networks."""

import copy
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bdclean import InputError, cleansing
from bdclean.cleansing import nc
from bdclean.data.batch import Batch
from tests.conftest import cleanse
from tests.test_cleansing_mathematics import (
    CLASSES,
    SIZE,
    convnet,
    entropy,
    equal,
    normalised,
    random_images,
    run,
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
    """Predicts the class nearest to the mean colour; one bright pixel favours class 1."""

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


# Options


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        (cleansing.NC, "rounds", 0),
        (cleansing.NC, "success", 1.5),
        (cleansing.NC, "threshold", -1.0),
        (cleansing.NC, "share", 2.0),
    ],
)
def test_a_wrong_option_is_named(method: type[Any], option: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{option} {value}: must be"):
        method(suspect_of(convnet()), **{option: value})


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize(("name", "options"), [("NC", ["--method.rounds", "2", "--method.threshold", "0"])])
def test_methods_train_with_labels_from_the_command_line(name: str, options: list[str], tiny_suspect: Path) -> None:
    length = ["--trainer.max_epochs", "2", "--data.num_unlabeled", "40"]
    report = cleanse(tiny_suspect, "--method", name, "--method.supervision", "labels", *length, *options)
    assert report["method"] == name
    assert report["options"]["supervision"] == "labels"
