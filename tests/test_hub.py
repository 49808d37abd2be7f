"""Folders of transformers and timm: reading, recognising, cleansing, writing, and refusing hostile folders."""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bdclean
from bdclean import InputError
from bdclean.checkpoint import read
from bdclean.cli.main import main
from bdclean.hub.processors import of_transformers
from bdclean.hub.resizes import UnknownPreparationError
from bdclean.modules import Suspect, identify

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

NAMES = {0: "cat", 1: "dog", 2: "frog"}
IMAGES = ("--data.source", "null", "--data.unlabeled", "procedural", "--data.num_unlabeled", "40")
FAST = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.logger", "false")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all connections fail."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def make_vit(path: str, **changes: Any) -> Any:
    """A folder as `save_pretrained` writes it, of a tiny ViT; returns the network."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, id2label=NAMES)
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(path)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_std=[0.25] * 3)
    processor.save_pretrained(path)
    if changes:
        edit(path, **changes)
    return network


def make_resnet(path: str) -> Any:
    """A folder of a tiny residual network, whose configuration has no image size."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    network = transformers.ResNetForImageClassification(config).eval()
    network.save_pretrained(path)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 48}).save_pretrained(path)
    return network


def make_timm(path: str, **changes: Any) -> Any:
    """A folder of timm."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3).eval()
    Path(path).mkdir()
    save_file(network.state_dict(), Path(path, "model.safetensors"))
    said = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 160, 160], "fixed_input_size": True}
    description = {"architecture": "test_vit", "num_classes": 3, "label_names": ["cat", "dog", "frog"]}
    Path(path, "config.json").write_text(json.dumps(description | {"pretrained_cfg": said} | changes))
    return network


def edit(path: str, **changes: Any) -> None:
    """Change a description."""
    place = Path(path, "config.json")
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


@pytest.mark.parametrize("make", [make_vit, make_resnet, make_timm])
@pytest.mark.parametrize("name", ["given", "given/model.safetensors"])
def test_a_folder_loads_as_in_its_library(make: Callable[[str], Any], name: str) -> None:
    theirs = make("given")
    found = read(name)
    suspect = Suspect(**identify(found, {}, None))
    suspect.load(found, "ckpt")
    images = torch.rand(2, 3, suspect.image_size, suspect.image_size)
    mean, std = (torch.tensor(suspect.hparams[key]).view(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = theirs((images - mean) / std)
        assert torch.allclose(suspect.eval()(images), getattr(wanted, "logits", wanted), atol=1e-5)


def test_the_configuration_of_a_folder_is_used() -> None:
    make_vit("given")
    found = read("given")
    assert found.class_names == ("cat", "dog", "frog")
    assert found.model["std"] == pytest.approx([0.25] * 3)
    assert (found.model["image_size"], found.model["num_classes"]) == (32, 3)
    make_timm("timm")
    assert read("timm").class_names == ("cat", "dog", "frog")


def test_names_of_earlier_versions_and_parts_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    network = make_vit("given")
    old = load_file("given/model.safetensors")
    assert any("encoder.layer" in name for name in old)
    Path("given/model.safetensors").unlink()
    half = len(old) // 2
    parts = {"a.safetensors": dict([*old.items()][:half]), "b.safetensors": dict([*old.items()][half:])}
    for part, tensors in parts.items():
        save_file(tensors, Path("given", part))
    mapping = {name: part for part, tensors in parts.items() for name in tensors}
    Path("given/model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    capsys.readouterr()
    weights = read("given").weights
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert capsys.readouterr().err == ""


def test_links_of_the_cache_are_followed() -> None:
    make_vit("blobs")
    snapshot = Path("models--me--vit/snapshots/abc")
    snapshot.mkdir(parents=True)
    Path("blobs").rename("models--me--vit/blobs")
    for name in os.listdir("models--me--vit/blobs"):
        Path(snapshot, name).symlink_to(f"../../blobs/{name}")
    assert read(str(snapshot)).class_names == ("cat", "dog", "frog")


@pytest.mark.parametrize("make", [make_vit, make_timm])
def test_a_cleansed_folder_is_loaded_by_the_library(make: Callable[[str], Any]) -> None:
    make("given")
    # Half precision is kept.
    halves = {name: value.half() for name, value in load_file("given/model.safetensors").items()}
    save_file(halves, "given/model.safetensors", {"format": "pt"})
    options = ("--trainer.max_epochs", "1", "--scan", "false", "--method", "Distill", "--data.batch_size", "20")
    main(["cleanse", "--ckpt", "given", *IMAGES, *FAST, *options])
    assert sorted(os.listdir("cleansed")) == sorted(os.listdir("given"))
    old, new = (load_file(f"{folder}/model.safetensors") for folder in ("given", "cleansed"))
    assert {name: value.dtype for name, value in old.items()} == {name: value.dtype for name, value in new.items()}
    assert any(not torch.equal(value, new[name]) for name, value in old.items())
    if make is make_vit:
        loaded, info = transformers.AutoModelForImageClassification.from_pretrained(
            "cleansed", local_files_only=True, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert loaded.config.id2label == NAMES
        transformers.AutoImageProcessor.from_pretrained("cleansed", local_files_only=True)
    else:
        loaded = timm.create_model(f"local-dir:{Path('cleansed').resolve()}", pretrained=True)
    after = read("cleansed").weights
    assert all(torch.equal(value.float(), after[name].float()) for name, value in loaded.state_dict().items())


def test_a_folder_with_other_files_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    make_vit("given")
    Path("mine").mkdir()
    Path("mine/thesis.tex").touch()
    capsys.readouterr()
    line = refused(["cleanse", "--ckpt", "given", *IMAGES, "--output", "mine", "--overwrite", "true"], capsys)
    assert line == "bdclean: error: --output mine: is a folder with other files (thesis.tex); choose a new name"
    assert os.listdir("mine") == ["thesis.tex"]


def test_a_file_does_not_become_a_folder(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["cleanse", "--ckpt", str(tiny_suspect), *IMAGES, "--output", "clean"], capsys)
    assert line.startswith("bdclean: error: --output clean: needs a suffix, such as .pt")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that refuses a command."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip()


def pickled() -> None:
    """Code in `pytorch_model.bin`."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("touch pwned",)

    Path("given/model.safetensors").unlink()
    Path("given/pytorch_model.bin").write_bytes(pickle.dumps({"vit.a": Evil()}))


def elsewhere() -> None:
    """A link that leads out of the folder."""
    Path("given/model.safetensors").rename("outside.safetensors")
    Path("given/model.safetensors").symlink_to("../outside.safetensors")


def not_finite() -> None:
    """A weight that is nan."""
    weights = load_file("given/model.safetensors")
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, "given/model.safetensors")


def indexed(part: str) -> Callable[[], None]:
    """An index that names a file."""

    def change() -> None:
        Path("given/model.safetensors").rename("outside.safetensors")
        index = {"weight_map": {"classifier.bias": part}}
        Path("given/model.safetensors.index.json").write_text(json.dumps(index))

    return change


def processor(**changes: Any) -> Callable[[], None]:
    """Other entries of the processor."""

    def change() -> None:
        place = Path("given/preprocessor_config.json")
        place.write_text(json.dumps(json.loads(place.read_text()) | changes))

    return change


def described(**changes: Any) -> Callable[[], None]:
    """Other entries of the description."""
    return lambda: edit("given", **changes)


HOSTILE: list[tuple[Callable[[], object], str]] = [
    (pickled, "refused, it would run code on loading: .*system"),
    (elsewhere, "its model.safetensors is a link that leads out of the folder"),
    (not_finite, "in which not all numbers are finite"),
    (
        indexed("../outside.safetensors"),
        r"names '\.\./outside.safetensors', which is not a weights file there",
    ),
    (indexed("gone.safetensors"), "names 'gone.safetensors', which is not a weights file there"),
    (lambda: Path("given/model.safetensors").unlink(), "without model.safetensors or pytorch_model.bin"),
    (described(auto_map={"AutoModel": "evil.Net"}), "refused, its config.json has auto_map"),
    (described(quantization_config={"quant_method": "gptq"}), "refused, its config.json has quantization_config"),
    (described(hidden_size=36), "does not fit transformers/vit, as its config.json describes it: .* instead of"),
    (described(hidden_size=10**9), "its config.json: hidden_size cannot be 1000000000"),
    (described(hidden_size=30000), "its configuration describes a network many times as large as its weights"),
    (described(num_hidden_layers=10**9), "num_hidden_layers cannot be 1000000000"),
    (described(num_hidden_layers=30000), "its configuration describes a network many times as large as its weights"),
    (described(num_hidden_layers=3), "does not fit transformers/vit, .*missing vit"),
    (described(num_hidden_layers=-1), "does not fit transformers/vit, .*surplus vit"),
    (described(num_hidden_layers="many"), "cannot be made .*num_hidden_layers"),
    (described(image_size=10**6), "image_size cannot be 1000000"),
    (described(image_size=800, patch_size=1), "many times as large as its weights"),
    (described(patch_size=0), "cannot be made"),
    (described(hidden_act="os.system"), "cannot be made"),
    (described(model_type="../evil"), "model_type '../evil' is not an image classifier of transformers"),
    (described(model_type=["vit"]), "is not an image classifier of transformers"),
    (described(architectures=["GPT2LMHeadModel"]), "holds GPT2LMHeadModel, no image classifier"),
    (described(id2label={str(one): "x" for one in range(5)}), "does not fit transformers/vit"),
    (processor(image_mean=[float("nan")] * 3), "mean cannot be"),
    (processor(image_std=["x"] * 3), "its processor is not supported: 'x' is not a number"),
    (processor(do_flip_channel_order=True), "its processor is not supported: do_flip_channel_order"),
    (lambda: Path("given/config.json").write_text("[" * 10**5), "its config.json cannot be read"),
    (lambda: Path("given/config.json").write_text("[]"), "its config.json is not a JSON object"),
    (lambda: Path("given/config.json").write_text("{}"), "neither the model_type of transformers nor timm's"),
    (lambda: Path("given/config.json").write_text(" " * 2**24), "its config.json has more than"),
]


@pytest.mark.parametrize(("change", "reason"), HOSTILE)
def test_hostile_folders_are_refused_in_one_line(change: Callable[[], object], reason: str) -> None:
    make_vit("given")
    change()
    with pytest.raises(InputError, match=reason) as caught:
        read("given")
    assert str(caught.value).startswith("ckpt given: ")
    assert "\n" not in str(caught.value)
    assert not Path("pwned").exists()


def test_errors_name_the_folder_in_python_and_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    make_vit("given", auto_map={"AutoModel": "evil.Net"})
    reason = "refused, its config.json has auto_map, which can run other code"
    with pytest.raises(InputError, match=f"^path given: {reason}$"):
        bdclean.load("given")
    capsys.readouterr()
    assert refused(["scan", "--ckpt", "given", *IMAGES], capsys) == f"bdclean: error: --ckpt given: {reason}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "hf-hub:evil/net"}, "architecture 'hf-hub:evil/net' is not a network of timm"),
        ({"architecture": "local-dir:/tmp"}, "architecture 'local-dir:/tmp' is not a network of timm"),
        ({"model_args": {"checkpoint_path": "evil.bin"}}, "its model_args have 'checkpoint_path'"),
        ({"model_args": {"pretrained_cfg": {"file": "evil.bin"}}}, "its model_args have 'pretrained_cfg'"),
        ({"model_args": {"depth": 30000}}, "many times as large as its weights"),
        ({"model_args": {"depth": 10**9}}, "depth cannot be 1000000000"),
        ({"model_args": {"nonsense": 1}}, "nonsense"),
        ({"num_classes": 10**9}, "num_classes cannot be 1000000000"),
        ({"num_classes": 7}, "does not fit timm/test_vit with 7 classes"),
    ],
)
def test_hostile_timm_folders_are_refused_in_one_line(changes: dict[str, Any], reason: str) -> None:
    make_timm("given", **changes)
    with pytest.raises(InputError, match=reason):
        identify(read("given"), {}, None)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    make_vit("given")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match=r'^ckpt given: needs transformers: pip install "bdclean\[hf\]"'):
        read("given")


def test_normalisation_matches_the_processor() -> None:
    pixels = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    common = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3, "do_resize": False, "do_center_crop": False}
    for extra in ({}, {"rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"do_normalize": False}):
        theirs = transformers.ViTImageProcessor(**common | extra)
        wanted = theirs(pixels, return_tensors="pt")["pixel_values"][0]
        ours = of_transformers(common | extra)
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (ours.mean, ours.std))
        assert torch.allclose((pixels / 255 - mean) / std, wanted, atol=1e-3), extra
    with pytest.raises(UnknownPreparationError):
        of_transformers({"rescale_factor": 0.0, "do_normalize": False})


FEW = ("test_vit", "test_vit2", "test_resnet", "efficientnet_lite0", "tf_efficientnet_lite0")
"""Networks of timm that are tried; all of them take half a minute."""


def test_networks_of_timm_are_recognised_from_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "list_models", lambda: list(FEW))
    torch.save({"state_dict": timm.create_model("test_vit", num_classes=4).state_dict()}, "a.pth")
    found = identify(read("a.pth"), {}, None)
    assert (found["arch"], found["num_classes"], found["image_size"]) == ("timm/test_vit", 4, 160)
    # These have the same tensors, and pad images differently.
    torch.save(timm.create_model("efficientnet_lite0", num_classes=2).state_dict(), "b.pth")
    with pytest.raises(InputError, match="b.pth fits timm/efficientnet_lite0 and timm/tf_efficientnet_lite0, which"):
        identify(read("b.pth"), {}, None)


@pytest.mark.parametrize(("make", "name"), [(make_vit, "vit"), (make_resnet, "resnet")])
def test_networks_of_transformers_need_their_configuration(make: Callable[[str], Any], name: str) -> None:
    make("given")
    Path("given/model.safetensors").rename("weights.safetensors")
    reason = rf"^ckpt weights.safetensors: a network of transformers \({name}\): put its config.json beside it"
    with pytest.raises(InputError, match=reason):
        identify(read("weights.safetensors"), {}, None)


@pytest.mark.parametrize(
    ("make", "form"),
    [(make_vit, "a.ckpt"), (make_vit, "a.pt"), (make_vit, "a.safetensors"), (make_timm, "a.safetensors")],
)
def test_other_forms_hold_the_same_network(make: Callable[[str], Any], form: str) -> None:
    make("given")
    options = ("--trainer.max_epochs", "1", "--scan", "false", "--method", "Distill", "--data.batch_size", "20")
    main(["cleanse", "--ckpt", "given", *IMAGES, *FAST, *options, "--output", form])
    main(["cleanse", "--ckpt", "given", *IMAGES, *FAST, *options, "--output", "folder"])
    if not form.endswith(".ckpt"):
        # Weights alone need the description beside them.
        name = {"a.pt": "pytorch_model.bin", "a.safetensors": "model.safetensors"}[form]
        Path("again").mkdir()
        Path("again/config.json").write_bytes(Path("given/config.json").read_bytes())
        Path("again", name).write_bytes(Path(form).read_bytes())
        form = "again"
    one, other = read(form), read("folder")
    identify(one, {}, None)
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
