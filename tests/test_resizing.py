"""Pictures become what the processor beside a network, or the transform of timm, would make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import bdclean
from bdclean import InputError
from bdclean.checkpoint import read
from bdclean.cli.main import main
from bdclean.data import PoisonDataModule
from bdclean.data.images import ArrayImages, to_pixels
from bdclean.decoding import decode, square
from bdclean.hub import resizes
from bdclean.hub.processors import Preparation, of_timm, of_transformers
from bdclean.hub.resizes import UnknownPreparationError
from bdclean.resizing import LARGEST, Resize, parse
from tests.test_hub import FAST, make_resnet, make_timm, make_vit

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

LEVELS = 4.0
"""Of 255: by how much Pillow and torchvision differ at single pixels, where a picture becomes much smaller."""
MEAN_LEVELS = 0.3
"""The same on average."""


def picture(height: int, width: int) -> Image.Image:
    """A picture with coarse and with fine detail."""
    generator = np.random.default_rng(height)
    coarse = Image.fromarray(generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    fine = generator.integers(-20, 20, (height, width, 3))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + fine).clip(0, 255).astype(np.uint8))


PICTURES = (picture(203, 311), picture(320, 97), picture(88, 60))


def prepared(image: Image.Image, said: Preparation) -> Tensor:
    """What this program feeds to a network, (3, H, W)."""
    assert said.image_size is not None
    pixels = square(image.copy(), said.image_size, said.resize).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (said.mean, said.std))
    return (pixels - mean) / std


def same(ours: Tensor, theirs: Tensor, said: Preparation) -> bool:
    """Whether two images differ by no more than the rounding of resampling libraries."""
    levels = 255 * (ours - theirs).abs() * torch.tensor(said.std).view(-1, 1, 1)
    return ours.shape == theirs.shape and float(levels.max()) <= LEVELS and float(levels.mean()) <= MEAN_LEVELS


PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ViTImageProcessor", {"size": {"height": 64, "width": 64}}),
    ("ViTImageProcessorPil", {"size": {"height": 64, "width": 64}, "resample": 3}),
    ("ViTImageProcessor", {"size": {"height": 64, "width": 64}, "resample": 1}),
    ("ViTImageProcessor", {"size": {"height": 64, "width": 64}, "resample": 0}),
    ("DeiTImageProcessor", {"size": {"height": 75, "width": 75}, "crop_size": {"height": 64, "width": 64}}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 77}, "crop_size": {"height": 64, "width": 64}}),
    ("BitImageProcessor", {"size": {"shortest_edge": 60}, "crop_size": {"height": 81, "width": 81}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}, "crop_pct": 0.95}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    ("LevitImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
    ("PoolFormerImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
    ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}}),
    ("MobileNetV2ImageProcessor", {"do_resize": False, "crop_size": {"height": 50, "width": 50}}),
    ("EfficientNetImageProcessor", {"size": {"height": 64, "width": 64}, "rescale_offset": True}),
]


@pytest.mark.parametrize(("name", "options"), PROCESSORS)
def test_images_are_what_the_processor_makes(name: str, options: dict[str, Any]) -> None:
    processor = getattr(transformers, name)(**options)
    said = of_transformers(processor.to_dict())
    assert said.note is None
    for image in PICTURES:
        theirs = processor(image, return_tensors="pt")["pixel_values"][0]
        assert same(prepared(image, said), theirs, said), image.size


@pytest.mark.parametrize("size", [224, {"height": 224, "width": 224}, None])
def test_entries_that_a_file_leaves_out_are_those_of_its_class(size: Any) -> None:
    # As files of 2021 are, and files that say nothing.
    said: dict[str, Any] = {"feature_extractor_type": "ViTFeatureExtractor"} | ({"size": size} if size else {})
    for found in (of_transformers(said), of_transformers({"size": size}, "vit"), of_transformers({}, "swin")):
        assert (str(found.resize), found.image_size) == ("stretch-224-bilinear-floor", 224)
        assert (found.mean, found.std) == ([0.5] * 3, [0.5] * 3)
    old = {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}
    assert str(of_transformers(old, "resnet").resize) == "shortest-256-bicubic-floor"
    assert of_transformers({"image_processor_type": "ConvNextImageProcessorFast"}).image_size == 384


TRANSFORMS: list[dict[str, Any]] = [
    {"crop_pct": 0.875, "interpolation": "bicubic"},
    {"crop_pct": 0.95, "interpolation": "bilinear"},
    {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "lanczos"},
    # At ties between pixels, Pillow and torchvision choose differently: not at this size.
    {"crop_pct": 1.0, "interpolation": "nearest", "input_size": [3, 64, 64]},
    {},
]


@pytest.mark.parametrize("options", TRANSFORMS)
@pytest.mark.parametrize("size", [64, 97])
def test_images_are_what_the_transform_of_timm_makes(options: dict[str, Any], size: int) -> None:
    config = {"input_size": [3, size, size], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], **options}
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
    said = of_timm(config)
    assert said.note is None
    for image in PICTURES:
        assert same(prepared(image, said), theirs(image), said), image.size


@pytest.mark.parametrize(
    ("said", "note"),
    [
        (
            {"image_processor_type": "DonutImageProcessor"},
            "its DonutImageProcessor resizes pictures in an unsupported way",
        ),
        ({"image_processor_type": "MyImageProcessor", "size": {"longest_edge": 9}}, "its MyImageProcessor resizes"),
        ({"size": {"height": 8, "width": 9}}, "resizes pictures in an unsupported way"),
        ({"size": 8, "do_pad": True}, "resizes pictures in an unsupported way"),
        ({"size": 8, "resample": 5}, "its processor resizes with resample 5"),
        ({"size": {"shortest_edge": 8}}, "its processor keeps the aspect ratio of images"),
    ],
)
def test_what_is_done_otherwise_is_said_in_a_line(said: dict[str, Any], note: str) -> None:
    found = resizes.of_transformers(said)
    assert found.note is not None
    assert note in found.note
    assert "\n" not in found.note


@pytest.mark.parametrize(
    ("changes", "note"), [({"crop_mode": "border"}, "'border'"), ({"interpolation": "random"}, "'random'")]
)
def test_so_are_those_of_timm(changes: dict[str, Any], note: str) -> None:
    found = resizes.of_timm({"input_size": [3, 64, 64]} | changes)
    assert found.image_size == 64
    assert found.resize is None
    assert note in str(found.note)


@pytest.mark.parametrize(
    "said",
    [
        {"size": {"height": 10**9, "width": 10**9}},
        {"size": {"shortest_edge": -1}},
        {"size": {"height": "8", "width": "8"}},
        {"size": 8, "do_center_crop": True, "crop_size": LARGEST + 1},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": "x"},
        {"image_processor_type": "ViTImageProcessor", "size": {"nonsense": 2}},
    ],
)
def test_sizes_that_cannot_be_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(UnknownPreparationError):
        of_transformers(said)


@pytest.mark.parametrize("text", ["shortest-256-bicubic", "stretch-224-bilinear-floor", "keep", "keep-floor"])
def test_texts_are_read_as_they_are_written(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["shortest-256", "stretch-0-bilinear", "shortest-99999-bicubic", "keep-8", "", "None"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"^resize .*{text}.*: "):
        PoisonDataModule("shapes", resize=text)


@pytest.mark.parametrize("resize", [Resize("shortest", 40, "bicubic"), Resize("stretch", 24), Resize("keep")])
def test_arrays_are_resized_as_pictures_are(resize: Resize) -> None:
    arrays = torch.stack([torch.from_numpy(np.array(picture(48, 64))) for _ in range(2)])
    wanted = torch.stack([square(Image.fromarray(array.numpy()), 32, resize) for array in arrays])
    images = ArrayImages(arrays, 32).resized(resize)
    assert (images.batch(torch.arange(2)).int() - wanted.int()).abs().max() <= LEVELS
    assert (images.in_memory(0).pixels.int() - wanted.int()).abs().max() <= LEVELS
    # Those of the right size are images already.
    ready = ArrayImages(wanted, 32).resized(resize)
    assert torch.equal(ready.batch(torch.arange(2)), wanted)


def test_a_long_picture_takes_no_more_memory_than_its_centre() -> None:
    # Resized whole, it would have 2,000 million pixels.
    Image.new("L", (1, 60_000), 77).save("long.png")
    decoded = decode(Path("long.png"), 64, Resize("shortest", 200, "bicubic"))
    assert isinstance(decoded, Tensor)
    assert (decoded == 77).all()


def save_photos(folder: str) -> list[Path]:
    """Pictures of several shapes, in files."""
    Path(folder).mkdir()
    paths = [Path(folder, f"{number}.png") for number in range(12)]
    for number, path in enumerate(paths):
        picture(120 + 5 * number, 200 - 7 * number).save(path)
    return paths


@pytest.mark.parametrize("make", [make_vit, make_resnet, make_timm])
def test_predictions_are_those_of_the_library(make: Any) -> None:
    network = make("given")
    paths = save_photos("photos")
    if make is make_timm:
        config = json.loads(Path("given/config.json").read_text())["pretrained_cfg"]
        transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config))
        inputs = torch.stack([transform(Image.open(path)) for path in paths])
    else:
        processor = transformers.AutoImageProcessor.from_pretrained("given", local_files_only=True)
        inputs = processor([Image.open(path) for path in paths], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        outputs = network(inputs)
    wanted = getattr(outputs, "logits", outputs).softmax(1)
    main(["predict", "--ckpt", "given", "--data.unlabeled", "photos", *FAST])
    rows = [line.split(",") for line in Path("predictions.csv").read_text().splitlines()[1:]]
    found = {row[0]: (int(row[1]), float(row[3])) for row in rows}
    for path, probabilities in zip(paths, wanted, strict=True):
        label, probability = found[str(path)]
        assert probabilities[label] == pytest.approx(probability, abs=2e-3)
        assert probabilities.max() == pytest.approx(probability, abs=2e-3)


def test_every_way_in_resizes_alike() -> None:
    make_resnet("given")
    paths = save_photos("photos")
    saved = read("given")
    assert saved.data == {"resize": "shortest-54-bicubic-floor"}
    resize = parse(saved.data["resize"])
    wanted = {square(Image.open(path), 48, resize).numpy().tobytes() for path in paths}
    _, data = bdclean.load("given", unlabeled="photos")
    assert data.hparams["resize"] == saved.data["resize"]
    images = to_pixels(data.unlabeled_examples(10)).contiguous()
    assert {one.numpy().tobytes() for one in images} <= wanted
    # Of another size, or in the user's own way.
    _, data = bdclean.load("given", unlabeled="photos", image_size=64, model={"image_size": 64})
    assert data.hparams["resize"] is None
    _, data = bdclean.load("given", unlabeled="photos", resize="stretch-48-bilinear")
    assert data.hparams["resize"] == "stretch-48-bilinear"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_large_jpegs_are_decoded_at_a_fraction_of_their_size(interpolation: str) -> None:
    resize = Resize("shortest", 64, interpolation)
    picture(520, 600).save("large.jpg", quality=95)
    picture(500, 600).save("small.jpg", quality=95)
    for name, exact in (("large.jpg", False), ("small.jpg", True)):
        found, whole = decode(Path(name), 56, resize), square(Image.open(name), 56, resize)
        assert isinstance(found, Tensor)
        levels = (found.float() - whole.float()).abs()
        assert (levels.max() == 0) == exact
        # These pictures have more fine detail than photographs.
        assert levels.max() <= 1.5 * LEVELS
        assert levels.mean() <= 1


def test_a_cleansed_checkpoint_resizes_as_its_folder_did() -> None:
    make_resnet("given")
    save_photos("photos")
    options = ("--trainer.max_epochs", "1", "--scan", "false", "--method", "Distill", "--data.batch_size", "8")
    main(["cleanse", "--ckpt", "given", "--data.unlabeled", "photos", *FAST, *options, "--output", "a.ckpt"])
    assert read("a.ckpt").data["resize"] == "shortest-54-bicubic-floor"
