"""Which images carry a trigger: the scores against plain references, and the command."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bdclean import InputError, checkpoint
from bdclean.cli.main import main
from bdclean.filtering import (
    IBDPSC,
    STRIP,
    ActivationClustering,
    Context,
    Disagreement,
    PoolScore,
    ScaleUp,
    SCAn,
    Score,
    SpectralSignatures,
    TeCo,
    auroc,
    highest,
    p_values,
    predict_batches,
    threshold,
    true_positive_rate,
)
from bdclean.filtering.clustering import reduced, silhouettes, two_clusters
from bdclean.filtering.teco import CORRUPTIONS, SEVERITIES
from bdclean.filtering.untangling import whitened
from bdclean.networks import last_layer, penultimate
from tests.conftest import QUIET

torch.manual_seed(0)
IMAGES = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval().requires_grad_(False)


CONTEXT = Context(network(0), network(1), IMAGES[:3])


def scored(score: Score, context: Context = CONTEXT) -> list[float]:
    """The scores of all images, in batches of different sizes."""
    found = score.scores(context, predict_batches(context, [IMAGES[:5], IMAGES[5:]]))
    assert found.shape == (len(IMAGES),)
    return found.tolist()


def probabilities(part: nn.Module, image: Tensor) -> list[float]:
    weights = [math.exp(value) for value in part(image[None])[0].tolist()]
    return [one / sum(weights) for one in weights]


def likeliest(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def test_disagreement() -> None:
    assert CONTEXT.cleansed is not None
    expected = []
    for image in IMAGES:
        before, after = probabilities(CONTEXT.suspect, image), probabilities(CONTEXT.cleansed, image)
        y = likeliest(before)
        expected.append(math.log(before[y] / (1 - before[y])) - math.log(after[y] / (1 - after[y])))
    assert scored(Disagreement()) == pytest.approx(expected, abs=1e-4)


def test_disagreement_stays_finite_where_probabilities_are_rounded_to_1() -> None:
    sure = Context(nn.Sequential(CONTEXT.suspect, Times(1000)), CONTEXT.cleansed, IMAGES[:1])
    assert all(map(math.isfinite, scored(Disagreement(), sure)))


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return self.factor * values


def test_strip() -> None:
    expected = []
    for image in IMAGES:
        bits = 0.0
        for other in IMAGES[:2]:
            bits -= sum(p * math.log2(p) for p in probabilities(CONTEXT.suspect, 0.75 * image + 0.25 * other))
        expected.append(-bits / 2)
    assert scored(STRIP(blends=2, weight=0.25)) == pytest.approx(expected, abs=1e-5)


def test_scale_up() -> None:
    expected = []
    for image in IMAGES:
        own = likeliest(probabilities(CONTEXT.suspect, image))
        kept = [likeliest(probabilities(CONTEXT.suspect, (n * image).clamp(max=1))) == own for n in (2.0, 3.0, 8.0)]
        expected.append(sum(kept) / 3)
    assert scored(ScaleUp((2.0, 3.0, 8.0))) == pytest.approx(expected)
    assert 0 < sum(expected) < len(expected)


def test_p_values_and_the_threshold_flag_the_same_images() -> None:
    generator = torch.Generator().manual_seed(0)
    # Few values, so that many are equal.
    scores, clean = (torch.randint(0, 9, (number,), generator=generator).float() for number in (50, 19))
    plain = [(1 + sum(other >= score for other in clean.tolist())) / 20 for score in scores.tolist()]
    assert p_values(scores, clean).tolist() == pytest.approx(plain)
    for alpha in (0.05, 0.1, 0.31, 0.95, 1.0):
        flagged = [p <= alpha + 1e-9 for p in plain]
        assert (scores > threshold(clean, alpha)).tolist() == flagged


def test_the_share_of_false_alarms_is_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, others = torch.randn(999, generator=generator), torch.randn(20_000, generator=generator)
    assert float((others > threshold(clean, 0.05)).float().mean()) == pytest.approx(0.05, abs=0.01)


def test_auroc_and_true_positive_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 9, (60,), generator=generator).float()
    triggered = torch.arange(60) % 3 == 0
    high, low = scores[triggered].tolist(), scores[~triggered].tolist()
    pairs = [(one > other) + 0.5 * (one == other) for one in high for other in low]
    assert auroc(scores, triggered) == pytest.approx(sum(pairs) / len(pairs))
    for rate in (0.0, 0.1, 0.5, 1.0):
        cuts = [cut for cut in (-1.0, *low) if sum(one > cut for one in low) <= rate * len(low)]
        best = max(sum(one > cut for one in high) / len(high) for cut in cuts)
        assert true_positive_rate(scores, triggered, rate) == pytest.approx(best)
    assert auroc(scores, torch.ones(60, dtype=torch.bool)) is None
    assert true_positive_rate(scores, torch.zeros(60, dtype=torch.bool)) is None


def test_images_by_rank() -> None:
    assert highest(torch.tensor([1.0, 3, 2, 3]), 0.5).tolist() == [False, True, False, True]
    assert highest(torch.zeros(4), 0.01).sum() == 1


def with_batch_norms() -> Any:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.BatchNorm2d(6), nn.ReLU()]
    made = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 5)).eval().requires_grad_(False)
    for index in (1, 4):
        made[index].bias.uniform_(-1, 1)
    return made


def test_ibd_psc() -> None:
    suspect = with_batch_norms()
    context = Context(suspect, None, IMAGES)
    score = IBDPSC(factor=3.0, networks=2, changed_fraction=0.0)
    score.check(context)
    expected = [0.0] * len(IMAGES)
    # With `changed_fraction` 0, one amplified layer suffices: the last one, then both.
    for norms in ([4], [1, 4]):
        copied = with_batch_norms()
        for index in norms:
            copied[index].weight *= 3
            copied[index].bias *= 3
        for number, image in enumerate(IMAGES):
            own = likeliest(probabilities(suspect, image))
            expected[number] += probabilities(copied, image)[own] / 2
    assert scored(score, context) == pytest.approx(expected, abs=1e-5)
    # No number of layers changes more images than there are, so that all layers are amplified.
    strict = IBDPSC(factor=1.0, changed_fraction=1.0)
    strict.check(context)
    assert [len(one) for one in strict.parameters] == [4]


def test_ibd_psc_needs_batch_norms() -> None:
    with pytest.raises(InputError, match="^score IBDPSC: amplifies batch norms, and the suspect has none with scales$"):
        IBDPSC().check(CONTEXT)


def test_teco() -> None:
    expected = []
    for image in IMAGES:
        own = likeliest(probabilities(CONTEXT.suspect, image))
        found = []
        for corrupt in CORRUPTIONS:
            changed = [
                severity
                for severity in range(1, 6)
                if likeliest(probabilities(CONTEXT.suspect, corrupt(image[None], severity)[0])) != own
            ]
            found.append(min(changed, default=6))
        mean = sum(found) / len(found)
        expected.append(math.sqrt(sum((one - mean) ** 2 for one in found) / len(found)))
    assert scored(TeCo()) == pytest.approx(expected, abs=1e-5)
    assert max(expected) > 0


@pytest.mark.parametrize("size", [1, 4, 33])
def test_corruptions_keep_the_range_and_grow(size: int) -> None:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for corrupt in CORRUPTIONS:
        changes = []
        for severity in range(1, SEVERITIES + 1):
            found = corrupt(images, severity)
            assert found.shape == images.shape
            assert 0 <= float(found.min()) <= float(found.max()) <= 1 + 1e-6
            changes.append(float((found - images).norm()))
        assert size == 1 or changes == sorted(changes)


# Scores of a pool


def poisoned_pool() -> tuple[Tensor, Tensor, Tensor]:
    """Features, predicted classes, and the flags of 10 images of class 1 whose features are shifted."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(120, 12, generator=generator)
    predicted = torch.arange(120) % 3
    triggered = torch.zeros(120, dtype=torch.bool)
    triggered[1::12] = True
    predicted[triggered] = 1
    features[triggered] += 8 * torch.randn(12, generator=generator) / math.sqrt(12)
    return features, predicted, triggered


def test_spectral_signatures() -> None:
    features, predicted, triggered = poisoned_pool()
    scores = SpectralSignatures().score(features, predicted)
    for number in range(3):
        members = (predicted == number).nonzero()[:, 0]
        centred = features[members].double().numpy()
        centred = centred - centred.mean(0)
        # The eigenvector of the covariance, instead of the singular vector.
        direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        expected = [float(np.dot(row, direction)) ** 2 for row in centred]
        assert scores[members].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert auroc(scores, triggered) == 1


def test_activation_clustering() -> None:
    features, predicted, triggered = poisoned_pool()
    scores = ActivationClustering().score(features, predicted)
    assert auroc(scores, triggered) == 1
    members = (predicted == 1).nonzero()[:, 0]
    points = reduced(features[members], 10)
    second = two_clusters(points)
    assert second.tolist() in (triggered[members].tolist(), (~triggered[members]).tolist())
    clear = []
    for point, cluster in zip(points, second, strict=True):
        near, far = (
            math.dist(point.tolist(), points[second == one].mean(0).tolist()) for one in (cluster, not cluster)
        )
        clear.append((far - near) / max(far, near))
    assert silhouettes(points, second).tolist() == pytest.approx(clear)
    mean = sum(clear) / len(clear)
    expected = [mean * (one if flag else -one) for one, flag in zip(clear, triggered[members].tolist(), strict=True)]
    assert scores[members].tolist() == pytest.approx(expected, abs=1e-5)


def test_scan_of_a_pool() -> None:
    features, predicted, triggered = poisoned_pool()
    scores = SCAn().score(features, predicted)
    assert float(scores[triggered].min()) > math.e**2
    assert auroc(scores, triggered) == 1
    # The slow reference: Mahalanobis distances with the pooled covariance, of the best split found.
    rows = [features[predicted == number].double().numpy() for number in range(3)]
    pooled = sum((part - part.mean(0)).T @ (part - part.mean(0)) for part in rows) / len(features)
    inverse = np.linalg.inv(pooled + 1e-3 * np.diag(pooled).mean() * np.eye(12))
    points = whitened(features, predicted)

    def spread(part: Any) -> float:
        centred = part - part.mean(0)
        return float(sum(row @ inverse @ row for row in centred))

    ratios = []
    for number, part in enumerate(rows):
        second = two_clusters(reduced(points[predicted == number], 10)).numpy()
        ratios.append(spread(part) - spread(part[second]) - spread(part[~second]))
    middle = sorted(ratios)[1]
    deviation = 1.4826 * sorted(abs(one - middle) for one in ratios)[1]
    assert float(scores[triggered][0]) == pytest.approx((ratios[1] - middle) / deviation, rel=1e-3)
    assert float(scores.max()) == pytest.approx(max((one - middle) / deviation for one in ratios), rel=1e-3)


@pytest.mark.parametrize("score", [ActivationClustering(), SpectralSignatures(), SCAn()])
def test_small_and_equal_classes_of_a_pool_have_the_score_0(score: PoolScore) -> None:
    equal = score.score(torch.ones(9, 4), torch.tensor([0, 1, 2, 2, 2, 2, 2, 2, 2]))
    assert equal.tolist() == pytest.approx([0.0] * 9)


def test_penultimate_features() -> None:
    suspect = with_batch_norms()
    head = last_layer(suspect, 4)
    assert head is not None
    features, logits = penultimate(suspect, head, IMAGES)
    assert torch.equal(features, suspect[:7](IMAGES))
    assert torch.equal(logits, suspect(IMAGES))
    pooled = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        found, _ = penultimate(pooled, pooled[1], IMAGES)
        assert last_layer(pooled, 4) is pooled[1]
        assert torch.allclose(found, pooled[0](IMAGES).mean((2, 3)), atol=1e-6)
    assert last_layer(nn.Flatten(), 4) is None


# The command


@pytest.fixture
def cleansed(tiny_suspect: Path) -> Path:
    """Other weights of the same network, without a description."""
    weights = dict(checkpoint.read(str(tiny_suspect)).weights)
    path = Path("cleansed.pth").absolute()
    torch.save({name: one * 1.1 if one.is_floating_point() else one for name, one in weights.items()}, path)
    return path


@pytest.fixture
def pool() -> Path:
    """A folder with 40 images, and one that cannot be read."""
    folder = Path("pool")
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def run(suspect: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The JSON of a filtering and the rows of its CSV."""
    main(["filter", "--ckpt", str(suspect), *QUIET, "--trainer.logger", "false", *words])
    with open("filter.csv", encoding="utf-8", newline="") as file:
        return json.loads(Path("filter.json").read_text()), list(csv.DictReader(file))


@pytest.mark.usefixtures("tiny_shapes")
def test_test_images_measure_the_score(tiny_suspect: Path, cleansed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, rows = run(tiny_suspect, "--cleansed", str(cleansed), "--alpha", "0.1")
    triggered = torch.tensor([row["triggered"] == "true" for row in rows])
    scores = torch.tensor([float(row["score"]) for row in rows])
    assert report["metrics"]["auroc"] == pytest.approx(auroc(scores, triggered), abs=1e-3)
    assert (report["metrics"]["clean_images"], int(triggered.sum())) == (200, report["metrics"]["triggered_images"])
    assert report["known_clean_images"] == 30
    assert sum(row["flagged"] == "true" for row in rows) == report["flagged"] == len(report["flagged_images"])
    assert {row["flagged"] for row in rows if float(row["p_value"]) <= 0.1} <= {"true"}
    assert report["score"] == "Disagreement"
    page = Path("filter.html").read_text()
    assert "AUROC" in page
    assert "triggered 0" in {row["image"] for row in rows}
    assert capsys.readouterr().out.count("AUROC") == 1


@pytest.mark.usefixtures("tiny_shapes")
def test_a_pool_with_clean_images_of_its_own(tiny_suspect: Path, cleansed: Path, pool: Path) -> None:
    words = ["--cleansed", str(cleansed), "--data.unlabeled", str(pool), "--clean", "procedural", "--alpha", "0.05"]
    report, rows = run(tiny_suspect, *words)
    assert [Path(row["image"]).name for row in rows] == [f"{number:02}.png" for number in range(40)]
    assert set(rows[0]) == {"image", "suspect", "cleansed", "score", "p_value", "flagged"}
    assert report["metrics"] is None
    assert report["known_clean_images"] == 1000
    assert all(0 < float(row["p_value"]) <= 1 for row in rows)


@pytest.mark.usefixtures("tiny_shapes")
def test_without_clean_images_the_highest_scores_are_flagged(
    tiny_suspect: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.source", "null", "--data.attack", "null", "--data.unlabeled", str(pool), "--score", "STRIP"]
    report, rows = run(tiny_suspect, *words, "--score.blends", "2", "--alpha", "0.1")
    assert report["options"] == {"blends": 2, "weight": 0.5}
    assert report["threshold"] is None
    flagged = [float(row["score"]) for row in rows if row["flagged"] == "true"]
    assert len(flagged) == report["flagged"] == 4
    assert min(flagged) >= max(float(row["score"]) for row in rows if row["flagged"] == "false")
    assert {(row["p_value"], row["cleansed"]) for row in rows} == {("", "")}
    assert "4 of 40 images are flagged. They have the highest scores" in capsys.readouterr().out
    # Rank says nothing about triggers, so no script may depend on it.
    assert refused(tiny_suspect, capsys, *words, "--exit_code", "true") == (
        "bdclean: error: --exit_code true: needs images that are known to be clean: --clean"
    )


@pytest.mark.usefixtures("tiny_shapes")
def test_too_few_clean_images_raise_alpha(
    tiny_suspect: Path, cleansed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, _ = run(tiny_suspect, "--cleansed", str(cleansed), "--data.num_val", "4")
    assert report["alpha"] == pytest.approx(0.2)
    assert "WARNING: --alpha 0.01: 4 clean images allow no share of false alarms below 0.2" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_shapes")
def test_a_flag_is_exit_code_1(tiny_suspect: Path, cleansed: Path) -> None:
    words = ["--cleansed", str(cleansed), "--data.num_unlabeled", "5", "--data.unlabeled", "procedural"]
    with pytest.raises(SystemExit) as caught:
        run(tiny_suspect, *words, "--alpha", "1", "--exit_code", "true")
    assert caught.value.code == 1
    report = json.loads(Path("filter.json").read_text())
    assert (report["flagged"], report["threshold"]) == (5, None)
    # The clean images are the filtered ones, so that none has a higher score than all of them.
    words += ["--clean", "procedural", "--alpha", "0.0001"]
    report, _ = run(tiny_suspect, *words, "--exit_code", "true")
    assert report["flagged"] == 0


@pytest.mark.usefixtures("tiny_shapes")
def test_a_pool_score_is_measured_with_few_triggered_images(tiny_suspect: Path) -> None:
    report, rows = run(tiny_suspect, "--score", "SpectralSignatures", "--alpha", "0.1")
    assert (report["metrics"]["clean_images"], report["metrics"]["triggered_images"]) == (200, 10)
    assert len(rows) == 210


def refused(suspect: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line of a command that is refused."""
    with pytest.raises(SystemExit) as caught:
        main(["filter", "--ckpt", str(suspect), *QUIET, "--trainer.logger", "false", "--overwrite", "true", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.usefixtures("tiny_shapes")
def test_bad_input_is_one_line(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = "--cleansed: needed by Disagreement; the other scores use the suspect alone"
    expected = {
        (): needed,
        ("--cleansed", "nowhere.ckpt"): "--cleansed nowhere.ckpt: no such file",
        ("--cleansed", str(tiny_suspect)): f"--cleansed {tiny_suspect}: has the suspect's own weights, so that",
        ("--alpha", "0"): "--alpha 0.0: must be above 0 and at most 1",
        ("--score", "Strip"): "--score Strip: no such class; did you mean STRIP?",
        ("--score", "STRIP", "--score.blends", "0"): "--score.blends 0: must be at least 1",
        ("--clean", "nowhere"): "--clean nowhere: neither a folder, nor",
        ("--output", "scores.json"): "--output scores.json: that is the name of the report",
    }
    for words, line in expected.items():
        assert refused(tiny_suspect, capsys, *words).startswith(f"bdclean: error: {line}")
    torch.save({"weight": torch.zeros(3)}, "other.pth")
    assert refused(tiny_suspect, capsys, "--cleansed", "other.pth").startswith("bdclean: error: --cleansed other.pth:")
    assert not list(Path.cwd().glob("filter.*"))


@pytest.mark.usefixtures("tiny_shapes")
def test_other_results_are_not_overwritten(
    tiny_suspect: Path, cleansed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--score", "ScaleUp", "--score.factors", "[3]", "--alpha", "0.5"]
    run(tiny_suspect, *words)
    run(tiny_suspect, *words)
    with pytest.raises(SystemExit):
        run(cleansed, "--model.mean", "half", "--data.source", "shapes", *words)
    assert "filter.csv is the filtering with" in capsys.readouterr().err


def test_a_score_names_its_wrong_option() -> None:
    with pytest.raises(InputError, match="^weight 2: must be at least 0 and at most 1$"):
        STRIP(weight=2)
    with pytest.raises(InputError, match="^factors 0: must be at least 1$"):
        ScaleUp(())
