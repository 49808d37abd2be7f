"""The conclusion of a cleansing report."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import bdclean
from bdclean.checkpoint import read
from bdclean.cleansing.harm import Harm, LostClass
from bdclean.cli.main import main
from bdclean.data.images import to_float
from bdclean.data.shapes import draw_shapes
from bdclean.modules import Suspect, identify
from bdclean.reporting.conclusion import conclude
from bdclean.reporting.measures import Figure, Figures, Interval
from bdclean.reporting.parts import Subject
from bdclean.reporting.scans import Comparison, RecoveredASR, Verdict
from bdclean.scanning import SparseInversion
from bdclean.scanning.difference import Difference
from tests.conftest import QUICK, QUIET
from tests.results import cleansing, finding
from tests.strangers import Pooled

HARMLESS = Harm(5000, 0.014, 0.02, ())
PATCH, MARGIN = finding(0.001, 1, "PatchInversion"), finding(1.0, 3, "MaximumMargin")
SCAN = Comparison(
    Verdict((PATCH, MARGIN), 0.01, (), (MARGIN, MARGIN)), (RecoveredASR(99.0, 1.0), RecoveredASR(None, None))
)


def test_evidence_for_the_network() -> None:
    found = conclude(cleansing(harm=HARMLESS, scan=SCAN))
    assert found.trusted
    assert found.sentence == (
        "No evidence against the cleansed network: it agrees with the suspect on 98.2 to 98.9 % of test images "
        "(95 % interval, 5,000 images); no class lost more images than the suspect's uncertainty explains; the "
        "recovered trigger of PatchInversion flips 1.0 % of the images to class 1 (99.0 % before); a scan of the "
        "cleansed network finds no backdoor."
    )


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        ((0.1, 0.2), "flips a single class of the suspect but not of a re-initialised student"),
        ((0.1, 0.8), "triggers for single source classes (3) were recovered from the suspect and unlearned"),
    ],
)
def test_a_comparison_is_evidence_too(forward: tuple[float, float], expected: str) -> None:
    one = Difference(SparseInversion(), torch.tensor([2, 3]), torch.tensor(forward), torch.tensor([0.1, 0.1]))
    found = conclude(cleansing(harm=HARMLESS, differences=(one,), unlearned=True))
    assert found.sentence.endswith(f"{expected}.")
    ended = conclude(cleansing(differences=(one,)))
    assert ended.trusted == (not one.backdoor)
    assert ("training ended before they were unlearned" in ended.sentence) == one.backdoor


def test_all_evidence_against_the_network_is_listed() -> None:
    harm = Harm(500, 0.13, 0.01, (LostClass(1, 54, 0, 0),))
    scan = replace(SCAN, suspect=replace(SCAN.suspect, reference=(finding(0.001, 2), MARGIN)))
    found = conclude(cleansing(harm=harm, scan=scan, subject=Subject({}, warnings=("the images look wrong",))))
    assert not found.trusted
    assert found.sentence.startswith("DO NOT TRUST the cleansed network: the images look wrong; it disagrees with")
    assert "class 1 vanished: 54 images in the suspect, none in the cleansed network" in found.sentence
    assert "a scan of the cleansed network finds a backdoor towards class 2" in found.sentence


def test_few_images_are_inconclusive() -> None:
    for interval, images in ((None, 0), (Interval(34.2, 100.0, 2), 2)):
        found = conclude(cleansing(cleansed=Figures(agreement=Figure(100.0, interval))))
        assert found.trusted is None
        assert f"compared with the suspect on {images} images, and at least 100 are needed" in found.sentence


@pytest.mark.usefixtures("tiny_shapes")
def test_a_wrecked_network_is_not_to_be_trusted(suspicious: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "StrongDistillCleanseModule", "--method.ratios", "1", "--exit_code", "true"]
    with pytest.raises(SystemExit) as caught:
        main(["cleanse", "--ckpt", str(suspicious), *QUICK, *options])
    assert caught.value.code == 1
    assert "DO NOT TRUST the cleansed network: it disagrees with the suspect" in capsys.readouterr().out
    page = Path("cleansed.html").read_text()
    assert '<div class="banner warning"><strong>Do not trust the cleansed network</strong><p>DO NOT TRUST' in page


@pytest.mark.usefixtures("tiny_shapes")
def test_an_unchanged_network_is_trusted(suspicious: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No channel is unusual enough to be pruned.
    main(["cleanse", "--ckpt", str(suspicious), *QUIET, "--method", "CLP", "--method.u", "99", "--exit_code", "true"])
    assert "No evidence against the cleansed network: it agrees" in capsys.readouterr().out
    assert '<div class="banner good"><strong>Cleansed, without a scan</strong>' in Path("cleansed.html").read_text()


@pytest.fixture
def suspicious(tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suspect for the tiny embedded set, which predicts all classes with high confidence."""
    monkeypatch.setattr("bdclean.tasks.looking.find_symptom", lambda logits: None)
    content = torch.load(tiny_suspect, weights_only=True)
    checkpoint = read(str(tiny_suspect))
    model = Suspect(**identify(checkpoint, {}, None)).eval()
    model.load(checkpoint, "ckpt")
    with torch.no_grad():
        logits = model(to_float(draw_shapes(200, 1)[0]))
    *_, weight, bias = (value for name, value in content["state_dict"].items() if name.endswith(("weight", "bias")))
    bias.sub_(logits.mean(0)).mul_(1000)
    weight.mul_(1000)
    path = tiny_suspect.with_name("sure.ckpt")
    torch.save(content, path)
    return path


def test_python_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Pooled(), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].weight.mul_(1e4)
    images = torch.rand(400, 3, 16, 16)
    options = {"method": "DistillCleanseModule", "epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    monkeypatch.setattr("bdclean.cleansing.comparison.find_harm", lambda *_: Harm(100, 0.5, 0.1, ()))
    with pytest.warns(UserWarning, match="DO NOT TRUST the cleansed network: it disagrees with the suspect on 50.0 %"):
        bdclean.cleanse(model, images, **options)
