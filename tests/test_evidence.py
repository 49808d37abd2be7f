"""The evidence of reports: its mathematics against plain references, its sections, and its options."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from bdclean.cli.main import main
from bdclean.evidence import (
    Embedding,
    Evidence,
    Kind,
    LayerChange,
    Looks,
    attribute,
    changed_layers,
    embed,
    spectrum,
)
from bdclean.evidence.embedding import at_home
from bdclean.evidence.layers import channel_changes
from bdclean.evidence.tsne import PERPLEXITY, neighbourhoods, tsne
from bdclean.networks import find_channels
from bdclean.networks.cifar import small_cnn
from bdclean.reporting import cleansing as cleansing_report
from bdclean.reporting import html
from bdclean.reporting.parts import Subject
from bdclean.scanning import Finding
from bdclean.tasks.evidence import recovered_pairs, strongest
from tests.conftest import QUIET
from tests.results import cleansing, finding

torch.manual_seed(0)
IMAGES = torch.rand(3, 3, 8, 8)
STAMPED = IMAGES.clone()
STAMPED[:, :, 6:, 6:] = 1.0
COLUMNS = torch.tensor([0.0] * 6 + [1.0] * 2)
"""The columns of the trigger."""


def frozen_cnn() -> nn.Module:
    torch.manual_seed(1)
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )
    return network.eval().requires_grad_(False)


# Attribution


def test_grad_cam_is_that_of_the_paper() -> None:
    network = frozen_cnn()
    found = attribute(network, IMAGES)
    assert found is not None
    for image, own, predicted in zip(IMAGES, found.maps, found.predicted, strict=True):
        maps = network[:5](image[None]).requires_grad_()
        logits = network[5:](maps)
        assert predicted == logits.argmax()
        (gradient,) = torch.autograd.grad(logits[0, predicted], maps)
        expected = sum(float(gradient[0, k].mean()) * maps[0, k] for k in range(6))
        assert isinstance(expected, Tensor)
        expected = expected.detach().clamp(min=0)
        assert torch.allclose(own, expected / expected.max(), atol=1e-5)


def test_an_attribution_is_where_the_evidence_is() -> None:
    last, pooled = nn.Linear(2, 2), (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), *pooled, last)
    with torch.no_grad():
        network[2].weight.copy_(torch.eye(2)[..., None, None])
        network[2].bias.zero_()
        network[0].weight.copy_(torch.tensor([[1.0, 1, 1], [0, 0, 0]])[..., None, None])
        network[0].bias.copy_(torch.tensor([-2.0, 0.1]))
        last.weight.copy_(torch.tensor([[1.0, 0], [0, 0]]))
        last.bias.zero_()
    found = attribute(network.eval().requires_grad_(False), torch.where(STAMPED == 1, 1.0, 0.5 * IMAGES))
    assert found is not None
    assert torch.equal(found.maps, torch.zeros(3, 8, 8).index_fill_(1, torch.tensor([6, 7]), 1.0) * COLUMNS)


def test_a_vision_transformer_has_an_attribution_from_before_its_last_block() -> None:
    torch.manual_seed(0)
    network = VisionTransformer(32, 4, 4, 2, 32, 64, num_classes=5).eval()
    nn.init.normal_(network.heads.head.weight)
    found = attribute(network.requires_grad_(False), torch.rand(2, 3, 32, 32))
    assert found is not None
    assert found.maps.shape == (2, 32, 32)
    # Patches differ, although the class token alone is classified.
    assert float(found.maps[0].std()) > 0.01


def test_a_network_without_feature_maps_has_no_attribution() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))
    assert attribute(network.eval().requires_grad_(False), IMAGES) is None


# Embedding


def test_neighbourhoods_have_the_perplexity() -> None:
    points = torch.randn(90, 4, dtype=torch.float64)
    squared = torch.cdist(points, points).square()
    p = neighbourhoods(squared)
    assert float(p.sum()) == pytest.approx(1)
    assert torch.allclose(p, p.T)
    # The rows before they are made symmetric, by bisection of each row's variance.
    expected = torch.zeros_like(p)
    for i in range(90):
        low, high = 1e-9, 1e9
        for _ in range(200):
            variance = math.sqrt(low * high)
            row = torch.exp(-(squared[i] - squared[i][squared[i] > 0].min()) / variance)
            row[i] = 0
            row = row / row.sum()
            entropy = -float((row[row > 0] * row[row > 0].log()).sum())
            low, high = (variance, high) if entropy < math.log(PERPLEXITY) else (low, variance)
        expected[i] = row
    assert torch.allclose(p, (expected + expected.T) / 180, atol=1e-8)


def test_tsne_separates_clusters_and_is_deterministic() -> None:
    torch.manual_seed(0)
    features = torch.cat([torch.randn(30, 16) + 6 * torch.randn(1, 16) for _ in range(3)])
    points = tsne(features)
    assert points.shape == (90, 2)
    assert torch.equal(points, tsne(features))
    labels = torch.arange(3).repeat_interleave(30)
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert bool((labels[distances.argmin(1)] == labels).all())
    # Even three points, or points of a single dimension, have a place.
    assert torch.isfinite(tsne(torch.rand(3, 1))).all()


def test_images_in_a_cluster_of_their_own_are_not_at_home() -> None:
    pool = torch.cat([torch.randn(10, 2), torch.randn(10, 2) + 20])
    predicted = torch.arange(2).repeat_interleave(10)
    own = torch.zeros(4, dtype=torch.long)
    home = torch.randn(4, 2) * 0.1
    assert at_home(home, own, pool, predicted) >= 40
    assert at_home(home + 20, own, pool, predicted) == 0
    alone = torch.randn(9, 2) + 500
    assert at_home(alone, torch.zeros(9, dtype=torch.long), pool, predicted) == 0


def test_an_embedding_marks_clean_images_of_the_target_and_triggered_images() -> None:
    network = frozen_cnn()
    clean = torch.rand(12, 3, 8, 8)
    predicted = network(clean).argmax(1)
    found = embed(network, clean, IMAGES, STAMPED, predicted[:1].repeat(3))
    assert found is not None
    assert found.points.shape == (15, 2)
    expected = [Kind.CLEAN_OF_TARGET if one == predicted[0] else Kind.CLEAN for one in predicted]
    assert found.kinds.tolist() == [*expected, *[Kind.TRIGGERED] * 3]
    assert embed(nn.Flatten(), clean, IMAGES, STAMPED, predicted[:3]) is None


# Layers


def test_the_trigger_activated_change_is_that_of_the_paper() -> None:
    network = frozen_cnn()
    found = channel_changes(network, find_channels(network, 8), IMAGES, STAMPED)
    assert list(found) == ["0", "3"]
    for name, part in (("0", network[:2]), ("3", network[:4])):
        clean, triggered = part(IMAGES), part(STAMPED)
        channels = clean.shape[1]
        change = [sum(float((triggered - clean)[n, k].norm()) for n in range(3)) / 3 for k in range(channels)]
        size = sum(float(clean[n, k].norm()) for n in range(3) for k in range(channels)) / (3 * channels)
        assert found[name].tolist() == pytest.approx([one / size for one in change], rel=1e-4)


def test_layers_have_their_most_activated_channel_and_their_movement() -> None:
    before, after = frozen_cnn(), frozen_cnn()
    after[3].weight.data *= 1.1
    after[7] = nn.Linear(6, 4)
    first, second, head = changed_layers([before, after], IMAGES, STAMPED)
    changes = channel_changes(before, find_channels(before, 8), IMAGES, STAMPED)
    assert (first.name, first.channel, first.moved) == ("0", int(changes["0"].argmax()), 0)
    assert first.change == (pytest.approx(float(changes["0"].max())),) * 2
    assert second.moved == pytest.approx(10)
    # Layers of different shapes cannot be compared.
    assert (head.channel, head.change, head.moved) == (None, (), None)
    assert changed_layers([before], IMAGES, STAMPED)[0].moved is None


class TokensFirst(nn.Module):
    """A network between whose layers the tokens come before the images."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.head = nn.Linear(24, 4), nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.transpose(1, 2).flatten(2))[:, :7].transpose(0, 1)
        return self.head(self.inner(tokens).mean(0))


def test_layers_whose_outputs_begin_with_tokens_have_no_channels() -> None:
    network = TokensFirst().eval().requires_grad_(False)
    embedding, inner, head = changed_layers([network], IMAGES, STAMPED)
    assert embedding.channel is not None
    assert inner.channel is head.channel is None
    assert attribute(network, IMAGES) is None


# Frequencies


def test_a_wave_has_its_energy_at_its_frequency() -> None:
    columns = torch.arange(32.0)
    for cycles, low in ((2, 100), (12, 0)):
        wave = 0.3 + torch.sin(2 * math.pi * cycles * columns / 32).expand(1, 3, 32, 32)
        found = spectrum("wave", wave)
        assert found.low == pytest.approx(low, abs=0.01)
        assert sorted(found.energy.flatten().topk(2).indices.tolist()) == [16 * 32 + 16 - cycles, 16 * 32 + 16 + cycles]
    assert spectrum("nothing", torch.zeros(1, 3, 8, 8)).low == 0


# The trigger


def test_the_strongest_significant_finding_has_the_trigger() -> None:
    def with_trigger(p: float) -> Finding:
        one = finding(p, 2)
        return Finding(one.detector, one.scores, one.p_values, lambda images: images + 1)

    weak, strong = with_trigger(0.002), with_trigger(0.0001)
    assert strongest([finding(1e-9), weak, strong], 0.01) is strong
    assert strongest([finding(1e-9), with_trigger(0.5)], 0.01) is None
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    predicted = network(IMAGES).argmax(1)
    own = int(predicted[0])
    scores = torch.zeros(4)
    scores[own] = 1
    pairs = recovered_pairs(Finding("Some", scores, scores, lambda images: images + 1), network, IMAGES)
    assert len(pairs.clean) == int((predicted != own).sum())
    assert torch.equal(pairs.triggered, pairs.clean + 1)
    assert set(pairs.targets.tolist()) <= {own}


# The page


def evidence(embedding: Embedding | None) -> Evidence:
    cnn = frozen_cnn()
    looks = Looks(attribute(cnn, IMAGES), attribute(cnn, STAMPED), embedding)
    layers = (LayerChange("conv", 3, (4.0, 0.5), 12.0), LayerChange("head", None, (), None))
    spectra = (spectrum("clean images", IMAGES), spectrum("the attack's trigger", STAMPED - IMAGES))
    names = {"suspect": looks, "cleansed": looks}
    return Evidence("the attack's trigger", IMAGES, STAMPED, names, layers, spectra, 1.0)


def test_a_page_shows_the_evidence_with_captions_that_state_the_findings() -> None:
    embedding = Embedding(torch.rand(4, 2), torch.tensor([0, 1, 2, 2]), 1.0, 60.0)
    subject = Subject(
        {"arch": None, "image_size": 8, "num_classes": 5, "mean": [0.5], "std": [0.2]}, class_names=("a",) * 5
    )
    result = cleansing(evidence=evidence(embedding), subject=subject)
    shown = html.render(cleansing_report.page(result))
    headings = re.findall(r"<h2>(.*)</h2>", shown)
    assert headings[1:5] == [
        "Where the network looks",
        "Features",
        "Channels and weights",
        "Frequencies of the trigger",
    ]
    captions = re.findall(r'alt="([^"]+)"', shown)
    assert len(captions) == 2 + 2 + 1 + 2
    assert captions[0] == "Clean images: suspect predicts a, a, a; cleansed predicts a, a, a"
    assert "1 % are clean images of their own class (60 % without the trigger)" in captions[2]
    assert (
        "Largest: channel 3 of layer conv, 4.0 times the mean activation, and 0.5 in the cleansed network"
        in captions[4]
    )
    assert captions[5].startswith("Clean images: ")
    content = json.loads(json.dumps(result.to_json()))["evidence"]
    assert content["own_neighbours"]["suspect"] == {"triggered": 1.0, "clean": 60.0}
    assert content["layers"][0] == {"layer": "conv", "channel": 3, "tac": [4.0, 0.5], "moved": 12.0}


def test_a_page_leaves_out_what_there_is_not() -> None:
    assert "Features" not in html.render(cleansing_report.page(cleansing(evidence=evidence(None))))
    without = cleansing_report.page(cleansing())
    assert not {"Where the network looks", "Features", "Channels and weights"} & {one.title for one in without.sections}
    assert cleansing().to_json()["evidence"] is None
    blind = Evidence("t", IMAGES, STAMPED, {"network": Looks(None, None, None)}, (), (), 0.0)
    assert "no feature maps" in html.render(cleansing_report.page(cleansing(evidence=blind)))


# The commands


@pytest.mark.usefixtures("tiny_shapes")
def test_commands_show_evidence_unless_it_is_switched_off(tiny_suspect: Path) -> None:
    quick = [*QUIET, "--data.num_unlabeled", "100"]
    main(
        [
            "cleanse",
            "--ckpt",
            str(tiny_suspect),
            "--method",
            "FineTune",
            "--trainer.max_epochs",
            "1",
            *quick,
            "--scan",
            "true",
        ]
    )
    content = json.loads(Path("cleansed.json").read_text())["evidence"]
    assert content["trigger"] == "the attack's trigger"
    assert [len(one["tac"]) for one in content["layers"]] == [2] * 6 + [0]
    assert all(one["moved"] > 0 for one in content["layers"])
    assert {one["layer"] for one in content["layers"]} <= {name for name, _ in small_cnn(10).named_modules()}
    assert "Where the network looks" in Path("cleansed.html").read_text()
    main(["scan", "--ckpt", str(tiny_suspect), "--evidence", "false", *quick])
    assert json.loads(Path("scan.json").read_text())["evidence"] is None
    main(["scan", "--ckpt", str(tiny_suspect), *quick])
    assert "Where the network looks" in Path("scan.html").read_text()
