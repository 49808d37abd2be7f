"""Networks and images from outside this project, with the command line."""

import html.parser
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import models

from bdclean.cli.main import main
from bdclean.networks import build_network
from tests.conftest import CONFIGS, QUICK, QUIET
from tests.strangers import VGG, SmallVGG

SHARED = CONFIGS.parent.parent / "shared"
NET = ["--model.arch", "tests.strangers.SmallVGG", "--model.mean", "none"]
LARGE = ["--model.arch", "tests.strangers.VGG", "--model.mean", "none"]


@pytest.fixture
def stranger() -> Path:
    """A user's network, photographs, and a labelled test folder."""
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in SmallVGG().state_dict().items()}
    torch.save({"net": state, "acc": 84.5, "epoch": 7}, "stranger.pth")
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 33, 3), dtype=np.uint8)
        for folder in ("photos", f"labelled/{index % 10}"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(f"{folder}/{index}.png")
    Image.new("RGB", (4, 4), "white").save("my_trigger.png")
    return Path("stranger.pth")


def cleanse(*options: str, report: str = "cleansed.json") -> dict[str, Any]:
    main(["cleanse", "--ckpt", "stranger.pth", *NET, *QUICK, *options])
    read: dict[str, Any] = json.loads(Path(report).read_text())
    return read


class Page(html.parser.HTMLParser):
    """Checks that an HTML page refers to no other files."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_without_labels_or_trigger(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = cleanse("--data.unlabeled", "photos")
    assert set(report["suspect"].values()) == {None}
    assert [name for name, value in report["cleansed"].items() if value is not None] == ["agreement"]
    assert report["agreement_on"] == "held-out unlabeled images"
    assert (report["unlabeled_images"], report["held_out_images"]) == (40, 4)
    moved = report["classes"]
    assert [row["class"] for row in moved] == list(range(10))
    assert sum(row["suspect"] for row in moved) == sum(row["cleansed"] for row in moved) == 4
    stayed = sum(row["kept"] * row["suspect"] / 100 for row in moved if row["kept"] is not None)
    assert stayed / 4 * 100 == pytest.approx(report["cleansed"]["agreement"], abs=0.01)
    out = capsys.readouterr().out
    assert "stranger.pth: tests.strangers.SmallVGG, 10 classes, 32x32 images, not normalised" in out
    assert "under 'net' without 'module.'" in out
    assert "Classes that kept the smallest share of the suspect's predictions" in out
    page = Page()
    page.feed(Path("cleansed.html").read_text())
    assert all(link.startswith("data:image/") for link in page.links)
    assert {"table", "img"} <= set(page.tags)
    assert not {"script", "link"} & set(page.tags)


def test_the_result_loads_in_the_suspects_own_code(stranger: Path) -> None:
    cleanse("--data.unlabeled", "photos")
    before, after = (torch.load(name, weights_only=True) for name in ("stranger.pth", "cleansed.pth"))
    assert (list(after), after["acc"], after["epoch"]) == (["net", "acc", "epoch"], 84.5, 7)
    assert list(after["net"]) == list(before["net"])
    assert not torch.equal(after["net"]["module.features.0.weight"], before["net"]["module.features.0.weight"])
    torch.nn.DataParallel(SmallVGG()).load_state_dict(after["net"])


def test_with_labels_and_with_a_trigger(stranger: Path) -> None:
    given = ["--data.unlabeled", "photos", "--data.source", "labelled"]
    report = cleanse(*given)
    assert report["suspect"]["acc"] is not None
    assert (report["suspect"]["asr"], report["suspect"]["ra"]) == (None, None)
    assert report["agreement_on"] == "test images"
    report = cleanse(*given, "--data.attack", "BadNets", "--data.attack.trigger", "my_trigger.png")
    assert None not in report["suspect"].values()
    assert None not in report["cleansed"].values()
    assert "triggered images" in Path("cleansed.html").read_text()


def test_no_config_is_overwritten(stranger: Path) -> None:
    Path("config.yaml").write_text("# mine\ndata: {unlabeled: photos}\n")
    cleanse("--config", "config.yaml", "--trainer.logger", "false", "--method", "Distill")
    assert Path("config.yaml").read_text().startswith("# mine")
    cleanse("--config", "config.yaml")
    assert "unlabeled: photos" in Path("runs/cleanse/version_0/config.yaml").read_text()


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".tar", ".safetensors", ".ckpt", ".onnx"])
def test_every_form_of_output(suffix: str, stranger: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    output = f"out{suffix}"
    cleanse("--data.unlabeled", "photos", "--method", "Distill", "--output", output, report="out.json")
    assert {path.name for path in Path.cwd().glob("out*")} == {output, "out.json", "out.html"}
    if suffix == ".safetensors":
        weights = load_file(output)
        assert all(name.startswith("module.") for name in weights)
    elif suffix == ".ckpt":
        content = torch.load(output, weights_only=True)
        SmallVGG().load_state_dict(content["state_dict"])
        assert content["hyper_parameters"]["arch"] == "tests.strangers.SmallVGG"
        # A checkpoint cannot name code to run.
        with pytest.raises(SystemExit) as caught:
            main(["test", "--ckpt", output, "--data.source", "labelled", *QUIET])
        assert caught.value.code == 2
        main(["test", "--ckpt", output, "--data.source", "labelled", *NET[:2], *QUIET])
    elif suffix != ".onnx":
        assert list(torch.load(output, weights_only=True)) == ["net", "acc", "epoch"]


@pytest.mark.parametrize("command", ["test", "validate"])
def test_nothing_is_measured_without_labels(command: str, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--ckpt", "stranger.pth", *NET, *QUIET, "--data.unlabeled", "photos"])
    assert caught.value.code == 2
    assert "error: --data.source: has no labelled" in capsys.readouterr().err


def test_predictions_name_files(stranger: Path) -> None:
    main(["predict", "--ckpt", "stranger.pth", *NET, *QUIET, "--data.unlabeled", "photos"])
    assert len(Path("predictions.csv").read_text().splitlines()) == 41


def test_a_known_architecture_is_recognised(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build_network("resnet20", 10, 32).state_dict(), "stranger.pth")
    options = ["--model.mean", "cifar10", "--data.unlabeled", "photos", "--method", "Distill", *QUICK]
    main(["cleanse", "--ckpt", "stranger.pth", *options])
    assert "stranger.pth: resnet20 (recognised from the weights), 10 classes, 32x32 images" in capsys.readouterr().out


WRONG = {
    "--model.mean none UNLABELED": "--model.arch: needed, as stranger.pth fits no known network",
    "--model.arch tests.strangers.SmallVGG UNLABELED": "--model.mean: needed",
    "--model.arch nothing.VGG --model.mean none UNLABELED": "--model.arch nothing.VGG: cannot be imported",
    "--model.arch resnet18 --model.mean none UNLABELED": "--ckpt stranger.pth: does not fit resnet18: missing",
    "NET": "--data.source null: needs --data.unlabeled",
    "NET UNLABELED --output stranger.pth": "is the suspect",
    "NET UNLABELED --output out.h5": "--output out.h5: must end with .ckpt, .pt,",
    "NET UNLABELED --output out.html": "name of the report",
    "NET UNLABELED --model.image_size 40": "40x40",
    "NET UNLABELED --data.attack BadNets --data.attack.trigger gone.png": "--data.attack.trigger gone.png: neither",
    "NET UNLABELED --output /proc/out.pt": "--output /proc/out.pt: cannot be written there",
    "NET UNLABELED --model.std [1,1,1]": "a name sets both",
}
LONG = {"NET": " ".join(NET), "UNLABELED": "--data.unlabeled photos"}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_input_ends_in_one_line(options: str, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(LONG.get(word, word) for word in options.split()).split()
    with pytest.raises(SystemExit) as caught:
        main(["cleanse", "--ckpt", "stranger.pth", *words, *QUICK])
    lines = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert len(lines) == 1
    assert WRONG[options] in lines[0]
    assert not list(Path.cwd().glob("out*")) + list(Path.cwd().glob("cleansed*"))


@pytest.mark.usefixtures("narrow_networks")
def test_backdoorbench_gives_asr_from_its_own_images() -> None:
    rows = {}
    for index in range(12):
        place = Path(f"bd_test_dataset/{index % 9 + 1}/{index}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place)
        rows[index] = {"path": f"./record/run/{place}", "other_info": [0, index % 9 + 1]}
    network = build_network("preact_resnet18", 10, 32)
    with torch.no_grad():
        network.linear.bias.copy_(torch.tensor([1e3, *[0.0] * 9]))
    torch.save(
        {
            "model_name": "preactresnet18", "num_classes": 10, "model": network.state_dict(), "data_path": "data",
            "img_size": (32, 32, 3), "clean_data": "cifar10", "bd_train": None,
            "bd_test": {"bd_data_container": {"data_dict": rows}, "poison_indicator": np.ones(12)},
        },
        "attack_result.pt",
    )  # fmt: skip
    main(
        [
            "cleanse",
            "--ckpt",
            "attack_result.pt",
            "--data.unlabeled",
            "procedural",
            "--data.num_unlabeled",
            "20",
            *QUICK,
        ]
    )
    report = json.loads(Path("cleansed.json").read_text())
    assert (report["suspect"]["acc"], report["suspect"]["asr"], report["suspect"]["ra"]) == (None, 100.0, 0.0)
    assert report["cleansed"]["asr"] is not None
    assert list(torch.load("cleansed.pt", weights_only=False)) == list(
        torch.load("attack_result.pt", weights_only=False)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "acc", "asr", "trigger"),
    [
        ("vgg_badnets_8", 84.46, 97.74, "white --data.attack.size 4 --data.attack.position [27,27]"),
        ("vgg_trojan_sq_2", 84.61, 99.56, "SQ --data.attack.combine add --data.attack.position [0,0]"),
    ],
)
def test_suspects_from_outside(name: str, acc: float, asr: float, trigger: str) -> None:
    suspect = SHARED / "suspects" / f"{name}.pth"
    if not suspect.exists():
        pytest.skip(f"{suspect} is not here")
    subprocess.run([sys.executable, str(SHARED / "data/unpack.py"), "data"], check=True, capture_output=True)
    words = trigger.replace("SQ", str(SHARED / "suspects/trojan_sq.png")).split()
    target = ["--data.attack.target_class", name[-1]]
    source = ["--data.source", "data/cifar10.npz"]
    attack = ["--data.attack", "BadNets", "--data.attack.trigger", *words, *target]
    main(["cleanse", "--ckpt", str(suspect), *LARGE, *source, *attack, *QUIET])
    report = json.loads(Path("cleansed.json").read_text())
    assert report["suspect"]["acc"] == pytest.approx(acc, abs=0.1)
    assert report["suspect"]["asr"] == pytest.approx(asr, abs=0.1)
    assert report["cleansed"]["acc"] >= acc - 12
    assert report["cleansed"]["asr"] <= 25
    VGG().load_state_dict(torch.load("cleansed.pth", weights_only=True)["net"])


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet50", "vit_b_16"])
def test_large_networks_within_6_gib(arch: str) -> None:
    photos = SHARED / "data/imagenette2_224_small.tar"
    if not photos.exists():
        pytest.skip(f"{photos} is not here")
    subprocess.run([sys.executable, str(SHARED / "data/unpack.py"), "data"], check=True, capture_output=True)
    network = models.get_model(arch, weights=None)
    torch.save(network.state_dict(), f"{arch}.pth")
    command = ["cleanse", "--ckpt", f"{arch}.pth", "--model.mean", "imagenet", "--data.unlabeled", "data/imagenette"]
    code = (
        "import resource, sys; from bdclean.cli.main import main; main(sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--data.num_unlabeled", "40", *QUICK],
        capture_output=True, text=True, check=True, env=os.environ | {"BDCLEAN_DATA__NUM_WORKERS": "1"},
    )  # fmt: skip
    assert int(done.stdout.rpartition("peak ")[2]) < 6 * 2**20
    network.load_state_dict(torch.load("cleansed.pth", weights_only=True))
