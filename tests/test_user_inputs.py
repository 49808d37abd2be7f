"""Networks of timm and transformers, and images of every kind, in the Python API."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import bdclean
from bdclean.hub import names_of
from bdclean.reporting.results import Cleansing
from bdclean.user_inputs import gather, undo_normalization, with_normalization
from tests.strangers import SmallVGG

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def make_vit() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=32, patch_size=8)).eval()


def pictures(count: int = 24) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(count)]


def test_a_network_of_transformers_is_cleansed_with_its_processor() -> None:
    model = make_vit()
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    options = {"processor": processor, "epochs": 1, "method": "Distill", **QUIET}
    cleansed, result = bdclean.cleanse(model, pictures(), **options, return_result=True)
    assert type(cleansed) is type(model)
    assert isinstance(result, Cleansing)
    assert result.subject.description["mean"] == [0.5] * 3
    assert cleansed(torch.rand(2, 3, 32, 32)).logits.shape == (2, 2)
    assert not torch.equal(cleansed.classifier.weight, model.classifier.weight)


def test_processed_images_are_accepted() -> None:
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_std=[0.25] * 3)
    processed = processor(pictures(), return_tensors="pt")["pixel_values"]
    found = with_normalization(make_vit(), processor, None, None, None)
    pixels = undo_normalization(gather(processed, 100, None), found.mean, found.std)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    again = (pixels - torch.tensor(found.mean)) / torch.tensor(found.std)
    assert torch.allclose(again.permute(0, 3, 1, 2), processed, atol=1e-5)


def test_a_timm_network_provides_its_normalisation() -> None:
    model = timm.create_model("test_resnet", num_classes=3, pretrained=False).eval()
    found = with_normalization(model, None, None, None, None)
    assert (found.mean, found.image_size) == (
        list(model.pretrained_cfg["mean"]),
        model.pretrained_cfg["input_size"][-1],
    )
    scanned = bdclean.scan(model, pictures(), image_size=64, **QUIET)
    assert scanned.subject.description["std"] == pytest.approx(list(model.pretrained_cfg["std"]))
    # Float tensors are used as they are, in spite of the network's normalisation.
    scanned = bdclean.scan(model, torch.randn(24, 3, 64, 64), **QUIET)
    assert scanned.subject.description["std"] != pytest.approx(list(model.pretrained_cfg["std"]))


def test_a_loaded_suspect_provides_its_normalisation() -> None:
    torch.manual_seed(0)
    make_vit().save_pretrained("given")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_std=[0.25] * 3).save_pretrained("given")
    suspect, _ = bdclean.load("given")
    scanned = bdclean.scan(suspect, torch.rand(24, 3, 32, 32), **QUIET)
    assert scanned.subject.description["std"] == [0.25] * 3


@pytest.mark.parametrize("form", ["pictures", "entries", "loader", "batches", "tensor"])
def test_images_of_every_kind(form: str) -> None:
    floats = torch.rand(24, 3, 32, 32)
    given = {
        "pictures": pictures(),
        "entries": [{"image": one, "label": 0} for one in pictures()],
        "loader": DataLoader([{"pixel_values": one} for one in floats], batch_size=8),
        "batches": [(floats[:12], torch.zeros(12)), (floats[12:], torch.zeros(12))],
        "tensor": floats,
    }[form]
    found = gather(given, 20 if form != "tensor" else 24, 32)
    assert found.shape == (20 if form != "tensor" else 24, 32, 32, 3)
    assert found.dtype == (torch.uint8 if form in ("pictures", "entries") else torch.float32)


@pytest.mark.parametrize(
    ("images", "options", "reason"),
    [
        (pictures(), {"mean": "none"}, "^image_size: needed"),
        (pictures(), {"image_size": 32}, "^mean: needed"),
        ([*pictures(2), "text"], {"mean": "none", "image_size": 32}, "^images: gives str among pictures"),
        (torch.rand(9, 3, 32, 32), {"processor": "vit"}, "^processor: is a str; expected an image processor"),
        (torch.rand(9, 3, 32, 32), {"processor": {"mean": 0.5, "std": 0.5}, "mean": 0.5}, "^processor: sets mean"),
        (torch.rand(9, 3, 32, 32), {"processor": {"do_flip_channel_order": True}}, "^processor: do_flip_channel_order"),
    ],
)
def test_impossible_arguments_are_named(images: list[Any] | Tensor, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(bdclean.InputError, match=reason):
        bdclean.scan(SmallVGG(), images, **options, **QUIET)


def test_classes_are_called_what_the_network_calls_them() -> None:
    model = make_vit()
    model.config.id2label = {0: "cat", 1: "dog"}
    options = {"mean": "half", "std": "half", **QUIET}
    _, result = bdclean.cleanse(
        model, torch.rand(24, 3, 32, 32), epochs=1, method="Distill", return_result=True, **options
    )
    assert result.subject.class_names == ("cat", "dog")
    assert [one.name for one in result.classes] == ["cat", "dog"]
    # Names that transformers makes up say nothing.
    assert names_of(make_vit().config.id2label) == ()
    assert with_normalization(make_vit(), None, 0.5, 0.5, None).class_names == ()


def test_pictures_are_resized_as_the_processor_does_it() -> None:
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    found = with_normalization(make_vit(), processor, None, None, None)
    ours = gather(pictures(), 100, found.image_size, found.resize).permute(0, 3, 1, 2) / 127.5 - 1
    theirs = processor(pictures(), return_tensors="pt")["pixel_values"]
    assert 127.5 * (ours - theirs).abs().max() <= 2
    # Of another size nothing is said.
    assert with_normalization(make_vit(), processor, None, None, 48).resize is None


def test_what_a_processor_does_otherwise_is_said(caplog: pytest.LogCaptureFixture) -> None:
    processor = transformers.ViTImageProcessor(size={"shortest_edge": 32})
    with_normalization(make_vit(), processor, None, None, None)
    assert "processor: its processor keeps the aspect ratio of images; bdclean crops their centre" in caplog.text
