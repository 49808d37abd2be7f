"""Images of any size and format, and files that are not images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from bdclean import InputError
from bdclean.data import PoisonDataModule, files
from bdclean.data.files import FileImages
from bdclean.data.sources import open_source
from bdclean.errors import Given

RED = (200, 30, 10)


def only(path: str, size: int = 16) -> torch.Tensor:
    return FileImages([Path(path)], size, Given("data.unlabeled", "x")).batch(torch.tensor([0]))[0]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "RGB"), ("a.jpg", "RGB"), ("a.JPEG", "L"), ("a.jpg", "CMYK"), ("a.png", "RGBA"), ("a.png", "P"),
        ("a.gif", "RGB"), ("a.bmp", "RGB"), ("a.tiff", "RGB"), ("a.webp", "RGB"), ("a.ppm", "RGB"), ("a.tga", "RGB"),
        ("a.png", "1"), ("a.png", "LA"), ("a.ico", "RGBA"), ("a.jp2", "RGB"), ("a.dds", "RGB"), ("a.avif", "RGB"),
    ],
)  # fmt: skip
def test_formats_and_modes(name: str, mode: str) -> None:
    image = Image.new("RGB", (48, 40), RED)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    expected = np.asarray(image.convert("RGB"))[0, 0]
    image.save(name)
    pixels = only(name)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == torch.uint8
    if mode != "1":
        assert np.abs(pixels.numpy().astype(int) - expected).max() <= 12


@pytest.mark.parametrize("kind", ["16 bits", "32 bits", "floats"])
def test_more_than_8_bits_are_scaled_not_cut_off(kind: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 32), (32, 1))
    if kind == "16 bits":
        Image.fromarray(ramp.astype(np.uint16)).save("a.png")
    else:
        Image.fromarray(ramp.astype(np.int32 if kind == "32 bits" else np.float32)).save("a.tiff")
    pixels = only("a.png" if kind == "16 bits" else "a.tiff", 32)
    assert pixels[0, 0].max() <= 2
    assert pixels[0, -1].min() >= 253
    assert 120 <= pixels[0, 16, 0] <= 136


def test_a_rotated_photograph_is_turned_upright() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save("a.jpg", exif=exif, quality=95)
    upright = only("a.jpg", 20)
    assert upright[:8].float().mean() > 240
    assert upright[-8:].float().mean() < 15


def test_the_centre_is_kept_for_any_shape() -> None:
    pixels = np.zeros((8, 4000, 3), np.uint8)
    pixels[:, 1996:2004] = 255
    Image.fromarray(pixels).save("wide.png")
    assert only("wide.png", 8).float().mean() == 255


def test_huge_images_are_refused_before_they_are_decoded() -> None:
    Image.new("1", (20_000, 20_000)).save("huge.png")
    with pytest.raises(InputError, match="huge.png is not a readable image"):
        only("huge.png")


def folder_with(good: int, bad: int) -> None:
    folder = Path("photos/deeper/still")
    folder.mkdir(parents=True)
    for index in range(good):
        pixels = np.random.default_rng(index).integers(0, 256, (30, 20 + index % 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save((folder if index % 2 else folder.parents[1]) / f"{index}.png")
    whole = next(folder.parents[1].glob("*.png")).read_bytes()
    for index in range(bad):
        content = (b"", b"no image", whole[: len(whole) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n")[index % 4]
        (folder / f"bad{index}.{('png', 'jpg', 'png', 'jpg')[index % 4]}").write_bytes(content)
    (folder / "notes.txt").write_text("no image, and not called one")
    (folder / ".hidden.png").write_bytes(b"")
    next(folder.parents[1].glob("*.png")).rename(folder / "without_a_suffix")


@pytest.mark.parametrize("in_memory", [True, False])
def test_unreadable_files_are_counted_reported_and_left_out(in_memory: bool, caplog: pytest.LogCaptureFixture) -> None:
    folder_with(good=30, bad=12)
    data = PoisonDataModule(None, unlabeled="photos", image_size=16, in_memory=in_memory, num_workers=0, batch_size=8)
    assert len(data.defender) == 30
    assert len(data.defender.agreement) == 3
    assert len(data.defender.unreadable) == 12
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("unlabeled photos: 12 of 42 files are unreadable: ")
    assert message.endswith(" and 2 more")
    assert message.count("bad") == 10
    batches = list(data.defence(labels=False, choosing=False).train_dataloader())
    assert sum(len(batch.images) for batch in batches) == 27
    held_out = torch.cat([batch.images for batch in data.test_dataloader()[0]])
    assert held_out.shape == (3, 3, 16, 16)
    # Predictions name their files.
    names = data.predicted[1]
    assert sum(len(batch.images) for batch in data.predict_dataloader()) == len(names) == 30
    assert not any("bad" in name for name in names)


def test_the_same_images_are_used_with_and_without_memory() -> None:
    folder_with(good=20, bad=3)
    kept, streamed = (
        PoisonDataModule(None, unlabeled="photos", image_size=16, in_memory=keep, num_workers=0, num_unlabeled=10)
        for keep in (True, False)
    )
    parts = ((data.defender.own, data.defender.agreement.images) for data in (kept, streamed))
    for one, other in zip(*parts, strict=True):
        everything = torch.arange(len(one))
        assert torch.equal(one.batch(everything), other.batch(everything))


def test_without_a_terminal_there_is_no_progress_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(good=20, bad=0)
    # As if reading took long.
    monkeypatch.setattr(files, "tqdm", lambda loader, **options: tqdm(loader, **options | {"delay": 0}))
    _ = len(PoisonDataModule(None, unlabeled="photos", image_size=16, num_workers=0).defender)
    assert capsys.readouterr().err == ""


def test_more_than_half_unreadable_is_an_error() -> None:
    folder_with(good=5, bad=6)
    with pytest.raises(InputError, match="unlabeled photos: 6 of 11 images are unreadable: photos/"):
        _ = len(PoisonDataModule(None, unlabeled="photos", image_size=16, num_workers=0).defender)


def test_fewer_readable_images_than_may_be_used(caplog: pytest.LogCaptureFixture) -> None:
    folder_with(good=10, bad=3)
    data = PoisonDataModule(None, unlabeled="photos", image_size=16, num_workers=0, num_unlabeled=12)
    assert (len(data.defender), len(data.defender.agreement)) == (10, 1)
    message = "num_unlabeled 12: there are 10 readable unlabeled images; all of them are used"
    assert caplog.records[-1].getMessage() == message


@pytest.mark.parametrize("name", ["a.npy", "nchw.npy", "float.npy", "grey.npy", "one.npz"])
def test_arrays_without_labels(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    np.save("a.npy", pixels)
    np.save("nchw.npy", pixels.transpose(0, 3, 1, 2))
    np.save("float.npy", pixels.astype(np.float32) / 255)
    np.save("grey.npy", pixels[..., 0])
    np.savez("one.npz", anything=pixels)
    source = open_source(name, parameter="data.unlabeled")
    assert source.image_size == 16
    images = source.load_unlabeled(16, 5, 0).batch(torch.arange(20))
    expected = pixels[..., :1].repeat(3, -1) if name == "grey.npy" else pixels
    assert torch.equal(images, torch.from_numpy(expected))


def test_procedural_images() -> None:
    data = PoisonDataModule(None, unlabeled="procedural", num_unlabeled=50, image_size=24)
    assert len(data.defender) == 50
    assert data.unlabeled_examples(4).shape == (4, 3, 24, 24)


def test_class_folders_alone_are_a_test_set() -> None:
    for name in ("cat", "dog", ".cache"):
        Path("labelled", name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(f"labelled/{name}/0.png")
    source = open_source("labelled")
    assert (source.num_classes, source.has("train"), source.has("test"), source.numbered) == (2, False, True, False)


def test_links_to_folders_are_followed_without_cycles() -> None:
    for place in ("labelled/test/cat", "elsewhere/more", "elsewhere/.hidden"):
        Path(place).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(f"{place}/0.png")
    Path("labelled/test/dog").symlink_to(Path("elsewhere").resolve())
    Path("elsewhere/back").symlink_to(Path("labelled/test").resolve())
    images = open_source("labelled").load("test", 20)
    assert images.labels.tolist() == [0, 1]
    assert [str(path) for path in images.paths] == [  # type: ignore[attr-defined]
        "labelled/test/cat/0.png",
        "labelled/test/dog/more/0.png",
    ]


def test_training_images_without_labels_come_before_test_images() -> None:
    train, test = np.full((30, 8, 8, 3), 1, np.uint8), np.full((10, 8, 8, 3), 2, np.uint8)
    np.savez("mixed.npz", x_train=train, x_test=test, y_test=np.arange(10) % 2)
    images = open_source("mixed.npz").load_unlabeled(8, 5, 0)
    assert len(images) == 30
    assert images.batch(torch.arange(30)).unique().tolist() == [1]


def test_numbered_folders_are_the_classes_of_these_numbers() -> None:
    for name in ("2", "10", "9"):
        Path("labelled/test", name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(f"labelled/test/{name}/0.png")
    source = open_source("labelled")
    assert (source.num_classes, source.numbered) == (11, True)
    assert sorted(source.load("test", 20).labels.tolist()) == [2, 9, 10]


def test_a_large_size_does_not_enlarge_the_whole_set() -> None:
    pixels = np.zeros((500, 8, 8, 3), np.uint8)
    np.savez("small.npz", x_train=pixels, y_train=np.arange(500) % 2, x_test=pixels[:9], y_test=np.arange(9) % 2)
    images = open_source("small.npz").load("train", 1024)
    assert images.subset(torch.arange(3)).batch(torch.tensor([1])).shape == (1, 1024, 1024, 3)
    assert images.size_in_memory() == 500 * 1024 * 1024 * 3


@pytest.mark.parametrize(("size", "batch", "steps"), [(32, 128, 1), (64, 128, 1), (224, 10, 13), (512, 8, 16)])
def test_large_images_pass_in_small_batches(size: int, batch: int, steps: int) -> None:
    data = PoisonDataModule(None, unlabeled="procedural", image_size=size)
    assert (data.batch_size, data.accumulate) == (batch, steps)
    assert PoisonDataModule(None, unlabeled="procedural", image_size=size, batch_size=4).accumulate == 1


@pytest.mark.parametrize(("size", "batch", "steps"), [(32, 128, 1), (224, 80, 2), (512, 64, 2), (128, 128, 1)])
def test_each_process_has_its_share_of_small_batches(size: int, batch: int, steps: int) -> None:
    data = PoisonDataModule(None, unlabeled="procedural", image_size=size)
    data.tell(torch.device("cpu"), 8, 10)
    assert (data.batch_size, data.accumulate) == (batch, steps)
