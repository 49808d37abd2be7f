"""Images in folders of the library `datasets`: only as many are read as are used."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bdclean import InputError
from bdclean.cli.main import main
from bdclean.data.sources import open_source
from tests.conftest import QUIET
from tests.test_archives import reds

datasets = pytest.importorskip("datasets")


def rows(count: int, first: int = 0) -> Any:
    """A data set of images with a red value that is their number, and labels."""
    images = [Image.new("RGB", (40, 32), (first + number, 50, 200)) for number in range(count)]
    features = datasets.Features({"label": datasets.ClassLabel(names=["a", "b"]), "picture": datasets.Image()})
    return datasets.Dataset.from_dict({"label": [0] * count, "picture": images}, features=features)


def load(count: int) -> set[int]:
    """The red values of images that are read."""
    # The files of images last as long as their source.
    source = open_source("saved", parameter="data.unlabeled")
    return reds(source.load_unlabeled(16, count, 0))


def test_images_are_drawn_by_their_seed_and_no_more_are_read() -> None:
    rows(30).save_to_disk("saved", num_shards=3)
    source = open_source("saved", parameter="data.unlabeled")
    first, again, other = (reds(source.load_unlabeled(16, 10, seed)) for seed in (0, 0, 1))
    assert len(first) == 10
    assert first == again
    assert first != other
    images = source.load_unlabeled(16, 4, 0)
    assert len([*images.paths[0].parent.iterdir()]) == 4
    folder = images.paths[0].parent
    del images, source
    assert not folder.exists()
    assert load(100) == {*range(30)}


@pytest.mark.parametrize("names", [("validation", "train"), ("validation", "test")])
def test_of_several_parts_the_training_part_is_read(names: tuple[str, str]) -> None:
    datasets.DatasetDict({names[0]: rows(10), names[1]: rows(10, 100)}).save_to_disk("saved")
    assert min(load(10)) == (100 if "train" in names else 0)


def test_unusable_folders_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).save_to_disk("saved")
    with pytest.raises(InputError, match=r"^unlabeled saved: no images in it: its columns are text, label$"):
        load(1)
    state = Path("saved/state.json")
    kept = json.loads(state.read_text())
    for damaged in ("{}", "[", "null", json.dumps(kept | {"_data_files": [{"filename": "../../etc/passwd"}]})):
        state.write_text(damaged)
        with pytest.raises(InputError, match=r"^unlabeled saved: not a readable folder of datasets \(.*\)$"):
            load(1)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="needs datasets: pip install"):
        load(1)


def test_paths_to_images_are_not_followed() -> None:
    Image.new("RGB", (40, 32)).save("elsewhere.png")
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": "elsewhere.png"}]}, features=features)
    # `save_to_disk` would embed the image; written as an attacker would.
    table.save_to_disk("saved")
    from pyarrow import ipc

    shard = next(Path("saved").glob("*.arrow"))
    with ipc.new_stream(str(shard), table.data.table.schema) as writer:
        writer.write_table(table.data.table)
    with pytest.raises(InputError, match="row 0 has the path of an image, not the image$"):
        load(1)


@pytest.mark.usefixtures("tiny_shapes")
def test_a_network_is_scanned_with_them(tiny_suspect: Path) -> None:
    rows(40).save_to_disk("saved")
    main(["scan", "--ckpt", str(tiny_suspect), "--data.unlabeled", "saved", "--detector", "MaximumMargin", *QUIET])
    assert json.loads(Path("scan.json").read_text())["detectors"]
