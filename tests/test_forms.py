"""Files of other programs: finding the weights, and writing the cleansed weights in their place."""

import argparse
import copyreg
import functools
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bdclean import InputError
from bdclean.checkpoint import read, write
from bdclean.networks import build_network
from bdclean.networks.recognise import best_prefix, shapes_of

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return build_network("small_cnn", 10, 32).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


CONTENTS: dict[str, Any] = {
    "": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best": 0.5, "arch": "resnet18"},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2, 2)}}}},
    "net": lambda s: {"net": s, "acc": 90.0, "epoch": 1},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.1},
    "state_dict_ema": lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s},
    "netC": lambda s: {"netC": s, "netG": {"weight": torch.ones(2, 2)}, "best": np.float64(0.9)},
    "checkpoint.model": lambda s: {"checkpoint": {"model": s, "step": 3}, "seed": 1},
    "anything": lambda s: {"anything": s, "history": [1.0, 2.0], "curve": np.arange(3.0)},
}


@pytest.mark.parametrize("place", CONTENTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_found_and_replaced_in_place(place: str, legacy: bool, state: State) -> None:
    content = CONTENTS[place](prefixed(state, "module.model."))
    torch.save(content, "suspect.pth", _use_new_zipfile_serialization=not legacy)
    read_back = read("suspect.pth")
    assert read_back.place == place
    assert not read_back.own
    prefix, wrong = best_prefix(shapes_of(state), shapes_of(read_back.weights))
    assert (prefix, wrong) == ("module.model.", [])
    torch.manual_seed(1)
    cleansed = build_network("small_cnn", 10, 32)
    write(Path("cleansed.pth"), cleansed, torch.zeros(1, 3, 32, 32), read_back, prefix)
    written = torch.load("cleansed.pth", weights_only=False)
    assert list(written) == list(content)
    weights = functools.reduce(lambda part, key: part[key], place.split("."), written) if place else written
    assert list(weights) == list(prefixed(state, prefix))
    for name, value in cleansed.state_dict().items():
        assert torch.equal(weights[prefix + name], value)
    # The file has no copy of the backdoored weights.
    if place == "state_dict_ema":
        assert torch.equal(written["state_dict"]["module.model.0.weight"], cleansed.state_dict()["0.weight"])
    if place == "anything":
        assert (written["history"], written["curve"].tolist(), type(written["curve"])) == (
            [1.0, 2.0],
            [0, 1, 2],
            np.ndarray,
        )


@pytest.mark.parametrize("place", ["model", "model_ema"])
def test_copies_with_other_prefixes_and_types_are_replaced_too(place: str, state: State) -> None:
    average = {"n_averaged": torch.tensor(7)} | prefixed(state, "module.")
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    # As in files of torchvision's training script.
    content = {"model": half, "model_ema": average}
    torch.save(content, "suspect.pth")
    suspect = read("suspect.pth")
    assert suspect.place == "model_ema"
    if place == "model":
        torch.save({"model": half, "ema": average}, "suspect.pth")
        suspect = read("suspect.pth")
    network = build_network("small_cnn", 10, 32)
    write(Path("out.pth"), network, torch.zeros(1), suspect, "module." if place == "model_ema" else "")
    model, copied = torch.load("out.pth", weights_only=True).values()
    for name, value in network.state_dict().items():
        assert torch.equal(copied["module." + name], value.to(average["module." + name].dtype))
        assert torch.equal(model[name], value.to(half[name].dtype))
    assert list(copied) == list(average)
    assert copied["n_averaged"] == 7


def test_dtypes_and_versions_of_the_weights_are_kept() -> None:
    network = build_network("small_cnn", 10, 32).half()
    torch.save(network.state_dict(), "half.pt")
    suspect = read("half.pt")
    write(Path("out.pt"), build_network("small_cnn", 10, 32), torch.zeros(1), suspect, "")
    written = torch.load("out.pt", weights_only=True)
    assert isinstance(written, OrderedDict)
    assert written["0.weight"].dtype == torch.float16
    assert written["1.num_batches_tracked"].dtype == torch.int64
    assert written._metadata == network.state_dict()._metadata
    network.load_state_dict(written)


def test_other_entries_are_kept(state: State) -> None:
    others = {"loss.weight": torch.ones(10), "0.weight": torch.ones(2, 2)}
    content = {"pytorch-lightning_version": "2.0.0", "state_dict": prefixed(state, "model.") | others}
    torch.save(content, "theirs.ckpt")
    suspect = read("theirs.ckpt")
    assert best_prefix(shapes_of(state), shapes_of(suspect.weights)) == ("model.", [])
    network = build_network("small_cnn", 10, 32)
    write(Path("out.ckpt"), network, torch.zeros(1), suspect, "model.")
    written = torch.load("out.ckpt", weights_only=True)["state_dict"]
    assert list(written) == list(content["state_dict"])
    assert torch.equal(written["model.0.weight"], network.state_dict()["0.weight"])
    assert torch.equal(written["0.weight"], others["0.weight"])
    assert torch.equal(written["loss.weight"], others["loss.weight"])


def test_safetensors(state: State) -> None:
    save_file(prefixed(state, "net."), "suspect.safetensors")
    suspect = read("suspect.safetensors")
    network = build_network("small_cnn", 10, 32)
    for suffix in (".safetensors", ".pt"):
        write(Path(f"out{suffix}"), network, torch.zeros(1), suspect, "net.")
        out = load_file("out.safetensors") if suffix == ".safetensors" else torch.load("out.pt", weights_only=True)
        assert set(out) == set(suspect.weights)
        assert torch.equal(out["net.0.weight"], network.state_dict()["0.weight"])


def test_onnx_outputs_the_networks_logits() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = build_network("resnet20", 7, 32).eval()
    write(Path("out.onnx"), network, torch.zeros(1, 3, 32, 32), None, "")
    session = onnxruntime.InferenceSession("out.onnx")
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        (answer,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(answer), network(images).detach(), atol=1e-4, rtol=1e-4)


def test_cyclic_dictionaries_are_written_once(state: State) -> None:
    maze: dict[str, Any] = {"old": dict(state)}
    for _ in range(60):
        maze = {"a": maze, "b": maze}
    maze["itself"] = maze
    torch.save({"net": state, "maze": maze}, "maze.pt")
    network = build_network("small_cnn", 10, 32)
    write(Path("out.pt"), network, torch.zeros(1), read("maze.pt"), "")
    written = torch.load("out.pt", weights_only=True)
    inner = written["maze"]
    assert inner["itself"] is inner
    for _ in range(60):
        inner = inner["a"]
    assert torch.equal(inner["old"]["0.weight"], network.state_dict()["0.weight"])


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(content: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write(Path("out.pt"), nn.Linear(2, 2), torch.zeros(1), None, "")
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list"),
        ({"a": 1}, "no weights \\(it has a\\)"),
        ({"a": {"w": torch.ones(2, 2)}, "b": {"w": torch.ones(2, 2)}}, "weights under several keys \\(a, b\\)"),
        (argparse.Namespace(lr=1), "holds argparse.Namespace, not weights"),
        ({"w": torch.ones(2, 2), "x": "text", "v": torch.ones(2)}, "holds 'x', which is not a tensor"),
    ],
)
def test_files_without_weights_are_named(content: Any, reason: str) -> None:
    torch.save(content, "file.pt")
    with pytest.raises(InputError, match=f"ckpt file.pt: .*{reason}"):
        read("file.pt")


def bench(state: State, data: Any, **changes: Any) -> dict[str, Any]:
    """The content of a BackdoorBench file."""
    content = {
        "model_name": "preactresnet18",
        "num_classes": 10,
        "model": state,
        "data_path": "../data/cifar10",
        "img_size": [32, 32, 3],
        "clean_data": "cifar10",
        "bd_train": None,
        "bd_test": {
            "bd_data_container": {"save_folder_path": "x", "data_dict": data, "save_file_format": ".png"},
            "getitem_all": True,
            "original_index_array": np.arange(4),
            "poison_indicator": np.ones(4),
        },
    }
    return content | changes


def test_backdoorbench_with_images_in_files() -> None:
    rows = {}
    for index in range(4):
        place = Path(f"bd_test_dataset/{index + 1}/{index}.png")
        place.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), (index, 0, 0)).save(place)
        rows[np.int64(index)] = {"path": f"./record/run/{place}", "other_info": [0, np.int64(index + 1)]}
    torch.save(bench(build_network("preact_resnet18", 10, 32).state_dict(), rows), "attack_result.pt")
    suspect = read("attack_result.pt")
    assert suspect.model == {
        "arch": "preact_resnet18", "num_classes": 10, "image_size": 32,
        "mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.243, 0.261],
    }  # fmt: skip
    assert suspect.triggered is not None
    assert suspect.triggered.labels.tolist() == [1, 2, 3, 4]
    assert suspect.triggered.targets.tolist() == [0, 0, 0, 0]
    assert [path.name for path in suspect.triggered.images if isinstance(path, Path)] == [f"{i}.png" for i in range(4)]


def test_backdoorbench_with_embedded_images() -> None:
    pictures = [Image.new("RGB", (32, 32), (9, index, 0)) for index in range(2)]
    rows = {index: (picture, 3, index) for index, picture in enumerate(pictures)}
    state = build_network("resnet18", 10, 224).state_dict()
    torch.save(bench(state, rows, model_name="resnet18", clean_data="nobody_knows"), "attack_result.pt")
    suspect = read("attack_result.pt")
    assert suspect.model == {"arch": "resnet18", "num_classes": 10, "image_size": 32, "stem": "photo"}
    assert suspect.triggered is not None
    assert [np.asarray(image)[0, 0].tolist() for image in suspect.triggered.images] == [[9, 0, 0], [9, 1, 0]]
    # The cleansed file can be written, and read by BackdoorBench.
    write(Path("out.pt"), build_network("resnet18", 10, 32, "photo"), torch.zeros(1), suspect, "")
    images = torch.load("out.pt", weights_only=False)["bd_test"]["bd_data_container"]["data_dict"]
    assert type(images[0][0]) is Image.Image
    assert np.array_equal(np.asarray(images[1][0]), np.asarray(pictures[1]))


@pytest.mark.parametrize("path", ["/etc/../{}/outside/1/0.png", "../outside/1/0.png", "a/../../0.png"])
def test_backdoorbench_reads_no_image_outside_its_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "outside/1").mkdir(parents=True)
    (tmp_path / "inside").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "outside/1/0.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    rows = {0: {"path": path.format(tmp_path), "other_info": [0, 1]}}
    state = build_network("preact_resnet18", 10, 32).state_dict()
    torch.save(bench(state, rows), "inside/attack_result.pt")
    assert read("inside/attack_result.pt").triggered is None


PLAIN = """
import sys, torch, numpy as np
sys.modules["bdclean"] = None
multiarray = np._core.multiarray
allowed = [np.dtype, np.ndarray, multiarray._reconstruct, multiarray.scalar, *map(type, map(np.dtype, ("f4", "f8")))]
with torch.serialization.safe_globals(allowed):
    content = torch.load(sys.argv[1], weights_only=True)
print(*(type(content[key]) for key in ("x", "a", "acc") if key in content))
"""


def loaded_without_bdclean(path: str) -> str:
    """The result of `torch.load` in a Python without bdclean."""
    ended = subprocess.run([sys.executable, "-c", PLAIN, path], capture_output=True, text=True)
    assert not ended.returncode, ended.stderr
    return ended.stdout.strip()


def test_results_load_without_bdclean(state: State) -> None:
    """`../shared/cases/dtype_beside.pt`: torch could not load a result with placeholders of NumPy's types."""
    beside = {"x": np.dtype("float32"), "a": np.ones(3), "acc": np.float64(0.5), "args": argparse.Namespace(lr=1)}
    torch.save({"net": state, **beside}, "suspect.pt")
    suspect = read("suspect.pt")
    assert ["argparse.Namespace under 'args'" in note for note in suspect.notes] == [True]
    write(Path("out.pt"), build_network("small_cnn", 10, 32), torch.zeros(1), suspect, "")
    types = "<class 'numpy.dtypes.Float32DType'> <class 'numpy.ndarray'> <class 'numpy.float64'>"
    assert loaded_without_bdclean("out.pt") == types


@pytest.mark.parametrize("place", ["", "net"])
def test_whole_modules_are_cleansed_into_plain_weights(place: str, state: State) -> None:
    network = build_network("small_cnn", 10, 32)
    torch.save({place: network} if place else network, "whole.pth")
    suspect = read("whole.pth")
    assert suspect.place == place
    assert best_prefix(shapes_of(state), shapes_of(suspect.weights)) == ("", [])
    cleansed = build_network("small_cnn", 10, 32)
    write(Path("out.pth"), cleansed, torch.zeros(1), suspect, "")
    written = torch.load("out.pth", weights_only=True)
    assert torch.equal((written[place] if place else written)["0.weight"], cleansed.state_dict()["0.weight"])


class Shaped:
    """An object whose pickle makes an array of some shape, without data."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.ndarray, ((2**33,),)


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        (functools.reduce(lambda value, _: [value], range(450), 1), "nested more than 100 deep"),
        (Shaped(), "would run code on loading: numpy.ndarray"),
    ],
)
def test_content_that_cannot_be_written_is_refused_on_reading(beside: Any, reason: str, state: State) -> None:
    torch.save({"net": state, "x": beside}, "suspect.pt")
    with pytest.raises(InputError, match=reason):
        read("suspect.pt")


class Blank:
    """An object whose pickle makes a picture without a state."""

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg._reconstructor, (Image.Image, object, None)


def test_pictures_without_pixels_are_left_out(state: State) -> None:
    torch.save({"net": state, "x": Blank()}, "suspect.pt")
    suspect = read("suspect.pt")
    assert "a picture without pixels under 'x'" in suspect.notes[0]
    write(Path("out.pt"), build_network("small_cnn", 10, 32), torch.zeros(1), suspect, "")
    assert list(torch.load("out.pt", weights_only=True)) == ["net"]


NO_WEIGHTS: dict[str, tuple[Any, str]] = {
    "arrays": ({"a": np.ones((3, 3)), "b": np.ones(3)}, "NumPy arrays, not tensors; convert them: torch.save({name: "),
    "arrays in a section": ({"state_dict": {"a": np.ones((3, 3))}}, "NumPy arrays, not tensors; convert them"),
    "a tuple as a key": ({(0, "w"): torch.ones(3, 3)}, "tensors under (0, 'w'), a key of type tuple; expected a state"),
    "numbers as keys": ({0: torch.ones(3, 3)}, "tensors under 0, a key of type int; expected a state_dict"),
    "nothing": ({}, "an empty dictionary; expected a state_dict, as torch.save(network.state_dict(), path) writes it"),
    "nothing in its section": ({"state_dict": {}, "epoch": 3}, "no weights: 'state_dict' is empty; expected a state"),
    "no matrix": ({"bias": torch.ones(3)}, "no weights: of its tensors (bias) none is a matrix; expected"),
    "None": (None, "None; expected a state_dict"),
    "a tensor": (torch.ones(3, 3), "a single tensor; expected a state_dict"),
    "a list": ([torch.ones(3, 3)], "a list of 1 entries; expected a state_dict"),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_a_file_without_weights_is_described(name: str) -> None:
    content, message = NO_WEIGHTS[name]
    torch.save(content, "file.pt")
    with pytest.raises(InputError) as caught:
        read("file.pt")
    assert str(caught.value).startswith(f"ckpt file.pt: holds {message}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["quantised", "sparse"])
def test_deprecated_features_in_a_file_print_no_warning(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch.ones(3, 3)
        other = (
            torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8) if kind == "quantised" else weight.to_sparse_csr()
        )
        torch.save({"first": other, "second": weight}, "file.pt")
    message = "of a quantised network" if kind == "quantised" else "which is not an ordinary tensor"
    with pytest.raises(InputError, match=f"holds 'first', {message}"):
        read("file.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_a_quantised_network_is_reported(whole: bool, dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=dtype)
    torch.save({"model": quantised if whole else quantised.state_dict(), "epoch": 3}, "file.pt")
    with pytest.raises(InputError, match="a quantised network, .* give the float network that it was made from"):
        read("file.pt")
