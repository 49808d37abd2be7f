"""The README and the guides: their commands and code run as they stand, on tiny images; their links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bdclean import checkpoint, tasks
from bdclean.cli.main import main
from bdclean.engine.trainer import Trainer
from bdclean.filtering import Context, Score, predict_batches
from bdclean.networks import build_network
from bdclean.scanning import Detector
from tests.conftest import CONFIGS, QUICK

ROOT = CONFIGS.parent
FOLDERS = ("get_started", "guides", "extend")
GUIDES = sorted(path for folder in FOLDERS for path in (ROOT / "docs" / folder).glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "index.md", *GUIDES]
ELSEWHERE = ("hugging_face.md",)
"""Guides whose commands need files that tests of their own make."""
OTHERS = ("pip install ", "pytest", "tensorboard ", "docker ", "python -m venv ", "source ", "mkdocs ", "ruff ")
OTHERS += ("export ", "ray ", "torchrun ")
"""Beginnings of commands that are not this program's."""
IMPORTS = """
from typing import Any
from torch import Tensor
from bdclean.attacks import Attack
"""
"""What the README's code takes for granted."""


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [str(block) for block in found]


def commands() -> list[str]:
    """Each command of the pages once."""
    pages = [path for path in PAGES if path.name not in ELSEWHERE]
    text = "".join(block for path in pages for block in blocks(path, "bash")).replace("\\\n", " ")
    lines = [part.strip() for line in text.splitlines() for part in line.split("&&")]
    return list(dict.fromkeys(filter(None, lines)))


OURS = [command for command in commands() if command.startswith("bdclean ")]


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120


def test_every_command_is_known() -> None:
    unknown = [command for command in commands() if command not in OURS and not command.startswith(OTHERS)]
    assert not unknown
    assert len(OURS) > 15


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda path: path.name)
def test_links_of_pages_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}
    # Pages of classes are made when the site is built.
    made = re.compile(r"(\.\./)?(attacks|methods|detectors|scores)/\w+\.md")
    missing = [one for one in targets if one and not made.fullmatch(one) and not (page.parent / one).exists()]
    assert not missing


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that commands name, in the current folder, but for checkpoints of `bdclean fit`."""
    torch.save(build_network("small_cnn", 10, 32).state_dict(), "suspect.pth")
    Path("configs").symlink_to(CONFIGS)
    noise = np.random.default_rng(0)
    Path("my_photos").mkdir()
    for number in range(40):
        Image.fromarray(noise.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(f"my_photos/{number}.png")
    shutil.copytree("my_photos", "trusted_photos")
    parts = {f"{kind}_{part}": value for part in ("train", "test") for kind, value in _labelled(noise).items()}
    np.savez("cifar10.npz", **parts)
    Path("my_package").mkdir()
    Path("my_package/__init__.py").touch()
    Path("my_package/my_module.py").write_text(
        "from torch import nn\n\nclass MyNet(nn.Sequential):\n"
        "    def __init__(self, num_classes, width):\n"
        "        super().__init__(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(width, num_classes))\n"
    )
    monkeypatch.syspath_prepend(".")


def _labelled(noise: np.random.Generator) -> dict[str, Any]:
    images = noise.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    return {"x": images, "y": np.arange(300) % 10}


@pytest.mark.usefixtures("tiny_shapes", "narrow_networks", "files")
@pytest.mark.parametrize("command", OURS)
def test_commands_run_as_they_stand(command: str, tiny_suspect: Path) -> None:
    words = shlex.split(command)[1:]
    if "--ckpt" in words and (path := words[words.index("--ckpt") + 1]).endswith(".ckpt"):
        shutil.copy(tiny_suspect, path)
    if "--cleansed" in words:
        weights = checkpoint.read(str(tiny_suspect)).weights
        scaled = {name: 1.1 * one if one.is_floating_point() else one for name, one in weights.items()}
        torch.save(scaled, words[words.index("--cleansed") + 1])
    if words[0] == "fit" and "--data.source" in words:
        drawn = _labelled(np.random.default_rng(0))
        np.savez(words[words.index("--data.source") + 1], images=drawn["x"], labels=drawn["y"])
    # The data set that would be downloaded is drawn instead.
    words = ["cifar10.npz" if word == "cifar10" else word for word in words]
    if any(word.startswith("configs/setup/cifar10") for word in words):
        words += ["--data.source", "cifar10.npz", "--data.num_train", "250", "--data.num_held_out", "50"]
    if words[0] == "benchmark":
        words += [] if "--list" in words else ["--list"]
    elif "--trainer.devices" in words:
        # Several processes are another test's.
        words += ["--print_config"]
    else:
        words += QUICK
    # A finding is no fault of the command.
    codes = (0, 1) if "--exit_code" in words else (0,)
    assert ended(words) in codes


def ended(words: list[str]) -> Any:
    """The exit code of a command."""
    try:
        main(words)
    except SystemExit as end:
        return end.code or 0
    return 0


def test_grids_of_the_guides_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = blocks(ROOT / "docs" / "guides" / "benchmark.md", "yaml")
    grid = yaml.safe_load(text)
    Path("configs").symlink_to(CONFIGS)
    Path("grid.yaml").write_text(text)
    main(["benchmark", "--config", "grid.yaml", "--list"])
    cells = [grid[name] for name in ("seeds", "suspects", "methods", "images", "networks")]
    assert len(capsys.readouterr().out.strip().splitlines()) == np.prod([len(cell) for cell in cells])


@pytest.mark.usefixtures("tiny_shapes")
def test_the_python_guide_runs_then_a_method_of_ones_own() -> None:
    model, images = build_network("small_cnn", 10, 32), torch.rand(64, 3, 32, 32)
    names: dict[str, Any] = {"model": model, "images": images, "__name__": "guide"}
    for block in blocks(ROOT / "docs" / "guides" / "python.md", "python"):
        exec(block, names)
    assert type(names["cleansed"]) is type(model)
    assert names["found"].verdict.findings
    assert Path("third_class.ckpt").exists()
    assert names["result"].cleansed.agreement.percent is not None
    assert Path("third_class_cleansed.json").exists()
    method = executed("method.md")["SquaredLogits"]
    trainer = Trainer(max_epochs=1, enable_progress_bar=False)
    _, result = tasks.cleanse(trainer, names["suspect"], names["data"], method, scan=False)
    assert result.method == "SquaredLogits"
    assert executed("report_section.md")["epochs"](result).title == "Epochs"


def test_the_readmes_python_runs() -> None:
    model, images = build_network("small_cnn", 10, 32), torch.rand(20, 3, 32, 32)
    names: dict[str, Any] = {"model": model, "images": images}
    exec(IMPORTS, names)
    for block in blocks(ROOT / "README.md", "python"):
        exec(block, names)
    assert type(names["cleansed"]) is type(model)
    darkens(names["Stripes"])


def test_an_attack_of_ones_own() -> None:
    darkens(executed("attack.md")["Stripes"])


def test_a_detector_of_ones_own() -> None:
    detector: Detector = executed("detector.md")["Preference"](images=400)
    network = build_network("small_cnn", 10, 32).eval()
    with torch.no_grad():
        network[-1].bias[3] += 100  # type: ignore[operator, index]  # its last layer is linear
    finding = detector.find(network, torch.rand(8, 3, 32, 32), 10)
    assert finding.suspected == 3
    assert finding.p_value < 0.01


def test_a_score_of_ones_own() -> None:
    score: Score = executed("score.md")["Confidence"](temperature=2.0)
    network = build_network("small_cnn", 10, 32).eval()
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        context = Context(network, None, images)
        found = score.scores(context, predict_batches(context, [images[:2], images[2:]]))
        expected = (network(images) / 2).softmax(1).amax(1)
    torch.testing.assert_close(found, expected)
    assert score.options() == {"temperature": 2.0}


def executed(page: str) -> dict[str, Any]:
    """What the one block of code of a page defines."""
    (block,) = blocks(ROOT / "docs" / "extend" / page, "python")
    names: dict[str, Any] = {"__name__": "guide"}
    exec(block, names)
    return names


def darkens(kind: Any) -> None:
    """Whether an attack darkens every second column."""
    images = torch.rand(5, 3, 8, 8)
    attack = kind(alpha=0.3)
    assert attack.options()["alpha"] == 0.3
    expected = images.clone()
    expected[:, :, :, [0, 2, 4, 6]] *= 0.7
    torch.testing.assert_close(attack.apply(images), expected)
