"""Names of classes in reports, and file names that are not UTF-8 or look like formulas."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdclean.cli.main import main
from bdclean.data.sources import open_source
from bdclean.reporting.files import write_csv
from tests.conftest import QUICK, QUIET, cleanse

SHORT = ["--detector", "DenseInversion", "--detector.steps", "1", "--detector.sizes", "[1]"]
STRANGE = "photos\udcff"
"""A folder whose name is not UTF-8."""


@pytest.fixture
def strange() -> Path:
    folder = Path(STRANGE)
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("file systems of this system have no such names")
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"caf\udce9{index}.png")
    return folder


def unprintable(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Printed characters that terminals cannot show."""
    return [
        line for line in capsys.readouterr().out.splitlines() if any("\ud800" <= letter <= "\udfff" for letter in line)
    ]


@pytest.mark.usefixtures("tiny_shapes")
def test_names_that_are_not_utf8_work(tiny_suspect: Path, strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suspect = Path("suspect\udcff.ckpt")
    suspect.write_bytes(tiny_suspect.read_bytes())
    options = ["--ckpt", str(suspect), *QUIET, "--data.unlabeled", str(strange)]
    main(["predict", *options, "--output", "predicted\udcff.csv"])
    with open("predicted\udcff.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["image"] == r"photos\udcff/caf\udce90.png"
    assert len(rows) == 40
    main(["scan", *options, "--output", "found\udcff.json", *SHORT])
    assert json.loads(Path("found\udcff.json").read_text(encoding="utf-8"))["checkpoint"] == str(suspect)
    assert r"suspect\udcff.ckpt" in Path("found\udcff.html").read_text(encoding="utf-8")
    main(["cleanse", *options, "--output", "clean\udcff.ckpt", "--trainer.max_epochs", "1"])
    found = json.loads(Path("clean\udcff.json").read_text(encoding="utf-8"))
    assert (found["unlabeled_images"], found["output"]) == (40, "clean\udcff.ckpt")
    assert r"suspect\udcff.ckpt" in Path("clean\udcff.html").read_text(encoding="utf-8")
    assert not unprintable(capsys)


@pytest.mark.usefixtures("strange")
def test_training_on_folders_that_are_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        for name in ("cat\udcfe", "dog"):
            folder = Path(STRANGE, part, name)
            folder.mkdir(parents=True)
            for index in range(12):
                Image.new("RGB", (32, 32), (index, 200, 0)).save(folder / f"{index}\udcff.png")
    options = ["--data.source", STRANGE, "--data.image_size", "32", "--data.num_workers", "0"]
    main(["fit", "--config", str(Path(__file__).parent.parent / "configs" / "badnet.yaml"), *options, *QUICK])
    main(["cleanse", "--ckpt", "suspect.ckpt", *options, *QUIET, "--trainer.max_epochs", "1"])
    assert json.loads(Path("cleansed.json").read_text())["class_names"] == ["cat?", "dog"]
    assert not unprintable(capsys)


def test_cells_that_look_like_formulas() -> None:
    names = ["=1+1.png", "+1.png", "-1.png", "@sum.png", "\t=1.png", "\r=1.png", "a\n.png", "1.png"]
    write_csv(Path("names.csv"), ["image", "class"], [(name, -1) for name in names])
    with open("names.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    harmless = [r"'\t=1.png", r"'\r=1.png", r"a\n.png", "1.png"]
    assert [row[0] for row in rows] == [*(f"'{name}" for name in names[:4]), *harmless]
    # Numbers stay numbers.
    assert {row[1] for row in rows} == {"-1"}


@pytest.mark.usefixtures("tiny_shapes")
def test_reports_show_names_of_classes(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = [f"{number} {name}" for number, name in enumerate(open_source("shapes").class_names)]
    order = f"Classes of --data.source shapes: {'; '.join(classes)}\n"
    names = open_source("shapes").class_names
    main(["predict", "--ckpt", str(tiny_suspect), *QUIET])
    assert capsys.readouterr().out.count(order) == 1
    with open("predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "class", "name", "probability"]
    assert all(row["name"] == names[int(row["class"])] for row in rows)

    found = cleanse(tiny_suspect, "--trainer.max_epochs", "1")
    assert capsys.readouterr().out.count(order) == 1
    assert found["class_names"] == list(names)
    assert [row["name"] for row in found["classes"]] == list(names)
    assert f">3 ({names[3]})</" in Path("cleansed.html").read_text()

    main(["scan", "--ckpt", str(tiny_suspect), *QUIET, *SHORT])
    scanned = json.loads(Path("scan.json").read_text())
    assert scanned["name"] == names[scanned["class"]]
    assert f"class {scanned['class']} ({scanned['name']})" in capsys.readouterr().out
    assert f">3 ({names[3]})</" in Path("scan.html").read_text()

    # Without names, classes have only numbers.
    options = ["--data.source", "null", "--data.unlabeled", "procedural", "--data.num_unlabeled", "16"]
    main(["predict", "--ckpt", str(tiny_suspect), *QUIET, *options, "--output", "nameless.csv"])
    with open("nameless.csv") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {""}


def test_many_classes_are_not_all_printed() -> None:
    for number in range(300):
        Path("photos", "c" * 90 + f"{number:03}").mkdir(parents=True)
    line = open_source("photos").describe()
    assert line.endswith("; and 290 more")
    assert len(line) < 1000


def test_names_of_classes_are_shown_without_control_characters() -> None:
    for name in ("cat\x1b[31m", "dog"):
        Path("photos", name).mkdir(parents=True)
    assert open_source("photos").class_names == ("cat?[31m", "dog")


def test_an_ascii_terminal(tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in "01":
        Path("\u00e9", number).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(f"\u00e9/{number}/\u00e9.png")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown := io.BytesIO(), encoding="ascii"))
    main(["predict", "--ckpt", str(tiny_suspect), *QUIET, "--data.source", "\u00e9", "--output", "\u00e9.csv"])
    sys.stdout.flush()
    assert rb"Classes of --data.source \xe9: numbers, 0 to 1" in shown.getvalue()


@pytest.mark.parametrize(("name", "number", "called"), [("cifar100", 90, "train"), ("gtsrb", 14, "stop")])
def test_the_classes_of_known_sets_have_names(name: str, number: int, called: str) -> None:
    names = open_source(name).class_names
    assert len({*names}) == open_source(name).num_classes
    assert names[number] == called
    assert f"0 {names[0]}; 1 {names[1]}; " in open_source(name).describe()
