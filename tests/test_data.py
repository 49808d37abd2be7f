import builtins
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as transforms

from bdclean import InputError
from bdclean.attacks import BadNets
from bdclean.data import PoisonDataModule, cache, sampler
from bdclean.data import arrays as opened
from bdclean.data.augment import Augmentation, random_crop_flip
from bdclean.data.batch import Batch
from bdclean.data.images import MemoryImages, to_float, to_pixels
from bdclean.data.poisoning import trigger
from bdclean.data.sampler import BatchSampler
from bdclean.data.shapes import CLASSES, draw_shapes
from bdclean.data.sources import open_source
from bdclean.engine.introduction import introduce
from bdclean.engine.trainer import Trainer
from bdclean.modules import AttackModule

# The embedded set


def test_shapes_are_the_same_for_the_same_seed() -> None:
    images, labels = draw_shapes(200, seed=5)
    again, labels_again = draw_shapes(200, seed=5)
    other, _ = draw_shapes(200, seed=6)
    assert images.shape == (200, 32, 32, 3)
    assert images.dtype == torch.uint8
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(images, other)
    assert labels.bincount().tolist() == [20] * len(CLASSES)


def test_a_linear_model_does_not_solve_shapes() -> None:
    (x, y), (x_test, y_test) = draw_shapes(6_000, 0), draw_shapes(1_000, 1)
    x, x_test = (torch.cat([v.flatten(1) / 255 - 0.5, torch.ones(len(v), 1)], 1) for v in (x, x_test))
    wanted = torch.nn.functional.one_hot(y).float() - 0.1
    # Ridge regression in closed form, with the best of three penalties.
    gram, right = x.T @ x, x.T @ wanted
    scores = [
        ((x_test @ torch.linalg.solve(gram + penalty * torch.eye(len(gram)), right)).argmax(1) == y_test).float().mean()
        for penalty in (10, 300, 3000)
    ]
    assert max(scores) < 0.6


# Sources


LARGE = 1400
"""Number of images of 16 pixels that are enough for the cache."""


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return saved_arrays(tmp_path / "images.npz", 100)


def saved_arrays(path: Path, count: int) -> Path:
    """Write a file of `count` training images and 40 test images, 16 pixels, four classes."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, number in (("train", count), ("test", 40)):
        arrays[f"x_{split}"] = generator.integers(0, 256, (number, 16, 16, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(number) % 4
    np.savez(path, **arrays)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 8)):
        for label in ("cat", "dog"):
            (tmp_path / "photos" / part / label).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / label / f"{index:03}.png")
    return tmp_path / "photos"


def test_npz(npz: Path) -> None:
    source = open_source(str(npz))
    images = source.load("test", 16)
    assert (source.num_classes, source.image_size, len(images)) == (4, 16, 40)
    assert torch.equal(images.batch(torch.tensor([3])), torch.from_numpy(np.load(npz)["x_test"][[3]]))
    assert source.load("train", 8).batch(torch.tensor([0, 1])).shape == (2, 8, 8, 3)


def test_folder(folder: Path) -> None:
    source = open_source(str(folder))
    images = source.load("test", 24)
    assert (source.num_classes, source.image_size, len(images)) == (2, None, 16)
    assert images.labels.tolist() == [0] * 8 + [1] * 8
    assert images.batch(torch.tensor([5, 9])).shape == (2, 24, 24, 3)
    assert len(source.load_unlabeled(24, 1, 0)) == 56


def test_cifar10_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / datasets.CIFAR10.base_folder
    base.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3 * 32 * 32), dtype=np.uint8)

    def write(name: str, content: object) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    files = [write(name, {"data": part, "labels": list(range(10))}) for name, part in zip(names, pixels, strict=True)]
    meta, digest = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", files[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", files[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": meta, "key": "label_names", "md5": digest})
    source = open_source("cifar10", str(tmp_path))
    source.download()
    images = source.load("test", 32)
    assert len(source.load("train", 32)) == 50
    assert images.labels.tolist() == list(range(10))
    assert torch.equal(
        images.batch(torch.tensor([4]))[0, :, :, 1], torch.from_numpy(pixels[5, 4, 1024:2048]).view(32, 32)
    )


def test_mnist_by_name_becomes_colour(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, 7, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 7) + bytes(range(7)))
    images = open_source("mnist", str(tmp_path)).load("test", 28)
    assert torch.equal(images.batch(torch.arange(7)), torch.from_numpy(pixels)[..., None].expand(-1, -1, -1, 3))
    assert open_source("mnist", str(tmp_path)).load("train", 32).batch(torch.arange(2)).shape == (2, 32, 32, 3)


def test_gtsrb_by_name(tmp_path: Path) -> None:
    base = tmp_path / "gtsrb" / "GTSRB"
    for folder in (*(f"Training/{label:05}" for label in range(43)), "Final_Test/Images"):
        (base / folder).mkdir(parents=True)
        Image.new("RGB", (40, 30), (0, 128, 0)).save(base / folder / "a.ppm")
    (base.parent / "GT-final_test.csv").write_text("Filename;ClassId\na.ppm;42\n")
    source = open_source("gtsrb", str(tmp_path))
    for split, labels in (("train", list(range(43))), ("test", [42])):
        images = source.load(split, 32)
        assert images.labels.tolist() == labels
        assert images.batch(torch.tensor([0])).flatten(0, 2).unique(dim=0).tolist() == [[0, 128, 0]]


def test_stl10_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    base = tmp_path / datasets.STL10.base_folder
    base.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    for split in ("train", "test"):
        (base / f"{split}_X.bin").write_bytes(pixels.tobytes())
        (base / f"{split}_y.bin").write_bytes(bytes([1, 10]))
    (base / "class_names.txt").write_text("\n".join("abcdefghij"))
    images = open_source("stl10", str(tmp_path)).load("test", 96)
    assert images.labels.tolist() == [0, 9]
    # The files store images column by column.
    assert torch.equal(images.batch(torch.arange(2)), torch.from_numpy(pixels).permute(0, 3, 2, 1))


def test_a_failed_download_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(InputError, match=r"source cifar10: .*put cifar-10-python.tar.gz into .*shapes"):
        open_source("cifar10", str(tmp_path)).download()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x_train": np.full((2, 8, 8, 3), 2, np.float32), "y_train": np.zeros(2, int)}, "uint8"),
        ({"x_train": np.zeros((2, 8, 8, 3), np.uint8), "y_train": np.zeros((2, 1), int)}, "class numbers"),
        ({"x_train": np.zeros((2, 8, 8, 3), np.uint8), "y_train": np.zeros(3, int)}, "2 images in x_train, 3 labels"),
        ({"x_train": np.array([{}], dtype=object), "y_train": np.zeros(1, int)}, "x_train cannot be read"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "neither x_train nor x_test"),
    ],
)
def test_wrong_npz_is_named(arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(InputError, match=reason) as caught:
        open_source(str(tmp_path / "wrong.npz")).load("train", 8)
    assert str(caught.value).startswith(f"source {tmp_path / 'wrong.npz'}: ")


@pytest.mark.parametrize("name", ["nothing", "empty", "text.npz"])
def test_wrong_source_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=f"source {tmp_path / name}: "):
        open_source(str(tmp_path / name)).load("train", 8)


def test_unreadable_image_is_named(folder: Path) -> None:
    (folder / "train" / "cat" / "000.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"000\.png is not a readable image"):
        open_source(str(folder)).load("train", 8).batch(torch.tensor([0]))


# Batches


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("length", "batch_size"), [(100, 32), (97, 97), (97, 200), (1000, 7)])
def test_every_image_is_used_once_per_epoch(
    world: int, length: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[list[Tensor]] = []
    for rank in range(world):
        monkeypatch.setattr(sampler.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(sampler.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(sampler.distributed, "get_world_size", lambda: world)
        own = BatchSampler(length, batch_size, shuffle=True, seed=4)
        own.set_epoch(3)
        shares.append(list(own))
    assert {len(share) for share in shares} == {len(own)}
    steps = [torch.cat(parts) for parts in zip(*shares, strict=True)]
    assert torch.cat(steps).sort().values.tolist() == list(range(length))
    assert max(map(len, steps)) <= batch_size
    assert max(map(len, steps)) - min(map(len, steps)) <= 1
    monkeypatch.undo()
    alone = BatchSampler(length, batch_size, shuffle=True, seed=4)
    alone.set_epoch(3)
    assert all(torch.equal(one, several) for one, several in zip(alone, steps, strict=True))
    assert not all(
        torch.equal(one, other) for one, other in zip(alone, BatchSampler(length, batch_size, True, 5), strict=True)
    )


def test_crop_and_flip_against_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(256, (6, 10, 12, 3), dtype=torch.uint8)
    down, right = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 3, 2, 1, 0, 2])
    flips = torch.tensor([True, False, True, False, True, False])
    draws = iter([down[:, None], right[:, None]])
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: next(draws))
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: 1.0 - flips[:, None].float())
    out = random_crop_flip(pixels, padding=2, flip=True)
    for image, result, top, left, flip in zip(pixels, out, down.tolist(), right.tolist(), flips.tolist(), strict=True):
        expected = transforms.crop(transforms.pad(image.permute(2, 0, 1), [2, 2]), top, left, 10, 12)
        assert torch.equal(result.permute(2, 0, 1), transforms.horizontal_flip(expected) if flip else expected)


@pytest.mark.parametrize("flip", [True, False])
def test_crop_and_flip_have_gradients_of_the_visible_pixels(flip: bool) -> None:
    # Each pixel's value is its index, from 1, so that it shows where it comes from.
    pixels = (1.0 + torch.arange(6 * 10 * 12)).view(6, 10, 12, 1).expand(-1, -1, -1, 3)
    weights = torch.rand(6, 10, 12, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    expected = random_crop_flip(pixels, 2, flip)
    torch.manual_seed(1)
    leaf = pixels.clone().requires_grad_()
    out = random_crop_flip(leaf, 2, flip)
    assert torch.equal(out, expected)
    (gradient,) = torch.autograd.grad((out * weights).sum(), leaf)
    seen = torch.zeros(6 * 10 * 12 + 1, 3).index_add(0, out[..., 0].long().flatten(), weights.flatten(0, 2))
    torch.testing.assert_close(gradient.flatten(0, 2), seen[1:])


def test_stamping_rounds_to_uint8() -> None:
    pixels = torch.randint(256, (5, 8, 8, 3), dtype=torch.uint8)
    attack = BadNets()
    attack.build(8)
    expected = (attack.apply(pixels.permute(0, 3, 1, 2) / 255) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(trigger(pixels, attack), expected)
    assert torch.equal(to_float(pixels), pixels.permute(0, 3, 1, 2) / 255)


# The data module


@pytest.fixture
def data(npz: Path) -> PoisonDataModule:
    made = PoisonDataModule(
        str(npz), BadNets(target_class=1, poison_rate=0.2), num_val=10, num_held_out=20, batch_size=8
    )
    made.setup("fit")
    return made


def everything(loader: Any) -> tuple[Tensor, ...]:
    return tuple(torch.cat(columns) for columns in zip(*(batch[:3] for batch in loader), strict=True))


def test_held_out_images_that_a_suspect_was_trained_on_are_counted(data: PoisonDataModule, npz: Path) -> None:
    described = dict(data.hparams)
    assert data.trained_on(described) == 0
    assert data.trained_on({}) == 0
    others = (
        PoisonDataModule(str(npz), None, num_val=10, num_held_out=60),
        PoisonDataModule(str(npz), None, num_val=30, num_held_out=20),
        PoisonDataModule(str(npz), None, num_val=10, num_held_out=20, seed=1),
    )
    for other in others:
        theirs = set(data.sets.numbers[2].tolist())
        assert other.trained_on(described) == len(theirs & set(other.sets.numbers[1].tolist())) > 0
    assert PoisonDataModule(str(npz), None, unlabeled=str(npz), seed=1).trained_on(described) == 0


def test_without_images_of_other_classes_there_are_no_triggered_images(npz: Path) -> None:
    arrays = dict(np.load(npz))
    arrays["y_test"] = np.full(40, 1)
    np.savez("one.npz", **arrays)
    data = PoisonDataModule("one.npz", BadNets(target_class=1), num_val=10)
    data.setup("fit")
    assert len(data.test_dataloader()) == 1
    assert len(data.val_dataloader()) == 2


def test_the_network_decides_the_classes_if_images_lack_some(npz: Path) -> None:
    arrays = np.load(npz)
    np.savez("test.npz", x_test=arrays["x_test"], y_test=arrays["y_test"])
    data = PoisonDataModule("test.npz", BadNets(label_mode="all-to-all"), unlabeled="procedural")
    network = AttackModule("small_cnn", num_classes=6, image_size=16)
    network.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    introduce(network, data, network.trainer)
    data.setup("test")
    _, targets, labels, _ = next(iter(data.test_dataloader()[1]))
    assert torch.equal(targets, labels + 1)
    assert targets.max() == 4


def test_splits_are_disjoint_and_fixed(data: PoisonDataModule, npz: Path) -> None:
    val, held_out, train = data.sets.numbers
    assert [len(part) for part in (val, held_out, train)] == [10, 20, 70]
    assert torch.cat([val, held_out, train]).sort().values.tolist() == list(range(100))
    torch.rand(7)
    for other in (
        PoisonDataModule(str(npz), None, num_val=10, num_held_out=20),
        PoisonDataModule(str(npz), None, num_val=10, num_held_out=20, unlabeled=str(npz), num_train=70),
    ):
        assert all(torch.equal(one, two) for one, two in zip(other.sets.numbers, data.sets.numbers, strict=True))
    assert not torch.equal(PoisonDataModule(str(npz), num_val=10, num_held_out=20, seed=1).sets.numbers[0], val)


def test_train_loader_mixes_clean_and_poisoned(data: PoisonDataModule) -> None:
    data.attacker.augment = Augmentation(0, flip=False)  # to compare pixels
    images, targets, labels = everything(data.train_dataloader())
    poisoned = targets != labels
    assert poisoned.sum() == 14
    assert (targets[poisoned] == 1).all()
    patch = images[:, :, -3:, -3:]
    assert data.attack is not None
    expected = data.attack.apply(torch.zeros(1, 3, 3, 3))
    assert ((patch == expected).flatten(1).all(1) == poisoned).all()


def test_images_are_in_memory_once(data: PoisonDataModule) -> None:
    whole, training = data.sets.training, data.attacker.training.images
    assert isinstance(training, MemoryImages)
    assert training.pixels.data_ptr() == whole.pixels.data_ptr()  # type: ignore[attr-defined]
    assert len(data.attacker.training.stamp.pixels) == 14  # type: ignore[union-attr]
    few = whole.subset(data.sets.numbers[1])
    # The defender's images do not keep the other images alive.
    assert len(few.pixels) == 20  # type: ignore[attr-defined]
    for part, indices in ((training, data.sets.numbers[2]), (few, data.sets.numbers[1])):
        numbers = torch.tensor([3, 0, 3])
        assert torch.equal(part.batch(numbers), whole.batch(indices[numbers]))
        assert torch.equal(part.subset(numbers).labels, whole.labels[indices[numbers]])
    assert training.fingerprint() == MemoryImages(training.batch(torch.arange(70)), training.labels).fingerprint()


@pytest.fixture
def large_npz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file with enough images for the cache, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return saved_arrays(tmp_path / "images.npz", LARGE)


def kept() -> list[Path]:
    """The files in the cache of decoded images."""
    return [path for path in Path("kept").rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_decoded_images_are_cached_and_mapped_into_memory(large_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_source(str(large_npz)).load("train", 16)
    (file,) = kept()
    opened._opened.cache_clear()
    monkeypatch.setattr(opened.ArrayFile, "pixels", lambda *_: pytest.fail("decoded again"))
    second = open_source(str(large_npz)).load("train", 16)
    assert sum(line.endswith(file.name) for line in Path("/proc/self/maps").read_text().splitlines()) == 2
    expected = torch.from_numpy(np.load(large_npz)["x_train"])
    for images in (first, second):
        assert torch.equal(images.batch(torch.arange(LARGE)), expected)
        assert torch.equal(images.labels, torch.arange(LARGE) % 4)
    # Changes stay private.
    first.pixels[5] = 0  # type: ignore[attr-defined]
    assert torch.equal(open_source(str(large_npz)).load("train", 16).batch(torch.arange(LARGE)), expected)


def test_a_changed_file_is_decoded_again(large_npz: Path) -> None:
    before = open_source(str(large_npz)).load("train", 16)
    arrays = dict(np.load(large_npz))
    arrays["x_train"] = 255 - arrays["x_train"]
    np.savez(large_npz, **arrays)
    after = open_source(str(large_npz)).load("train", 16)
    numbers = torch.arange(LARGE)
    assert torch.equal(after.batch(numbers), 255 - before.batch(numbers))
    assert len(kept()) == 2


def test_without_disk_space_each_process_decodes(large_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write_whole", full)
    assert len(open_source(str(large_npz)).load("train", 16)) == LARGE
    assert not kept()
    Path("kept/bdclean/images").rename("elsewhere")
    Path("kept/bdclean/images").write_text("no folder")
    assert len(open_source(str(large_npz)).load("test", 16)) == 40


def test_a_damaged_cache_file_is_ignored(large_npz: Path) -> None:
    open_source(str(large_npz)).load("train", 16)
    (file,) = kept()
    file.write_bytes(file.read_bytes()[:500])
    assert len(open_source(str(large_npz)).load("train", 16)) == LARGE


def test_an_npz_is_opened_once(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[object] = []
    real = builtins.open

    def watch(path: Any, *arguments: Any, **options: Any) -> Any:
        times.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", watch)
    assert open_source(str(npz)).image_size == 16
    data = PoisonDataModule(str(npz))
    assert data.num_classes == 4
    assert len(everything(data.test_dataloader()[0])[0]) == 40
    assert len(data.sets.training) == 100
    assert times.count(npz) == 1


def test_evaluation_has_clean_images_and_triggered_ones_without_the_target_class(data: PoisonDataModule) -> None:
    clean, triggered = data.test_dataloader()
    images, targets, labels = everything(clean)
    assert torch.equal(targets, labels)
    assert len(images) == 40
    stamped, targets, true = everything(triggered)
    assert true.tolist() == labels[labels != 1].tolist()
    assert (targets == 1).all()
    torch.testing.assert_close(stamped, data.attack.apply(images[labels != 1]), atol=1 / 255, rtol=0)  # type: ignore[union-attr]


def test_in_defence_images_have_no_labels(data: PoisonDataModule) -> None:
    defence = data.defence(labels=False, choosing=0)
    batches = list(defence.train_dataloader())
    assert all(batch == Batch(batch.images) for batch in batches)
    assert sum(len(batch.images) for batch in batches) == 20
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    mine = torch.cat([batch.images for batch in defence.defender_dataloader(choosing=False)])
    assert torch.equal(to_pixels(mine), data.sets.held_out.batch(order))
    # The attacker's images have not changed.
    assert next(iter(data.train_dataloader())).labels is not None


def test_in_defence_selection_images_and_labels_are_optional(data: PoisonDataModule) -> None:
    defence = data.defence(labels=True, choosing=0.2)
    chosen, targets, labels = everything(defence.defender_dataloader(choosing=True))
    trained, _, _ = everything(defence.defender_dataloader(choosing=False))
    assert (len(chosen), len(trained)) == (4, 16)
    assert not any((image == trained).flatten(1).all(1).any() for image in chosen)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:4]
    assert torch.equal(labels, data.sets.held_out.labels[order])
    assert torch.equal(targets, labels)


def test_other_images_have_no_labels(npz: Path) -> None:
    data = PoisonDataModule(str(npz), unlabeled=str(npz))
    with pytest.raises(InputError, match="supervision labels: .* has images without labels"):
        data.defence(labels=True, choosing=False)


def test_other_unlabeled_images_of_any_size(npz: Path, tmp_path: Path) -> None:
    (tmp_path / "loose" / "deeper").mkdir(parents=True)
    for index, (size, mode) in enumerate([((40, 20), "RGB"), ((9, 33), "L"), ((16, 16), "RGBA"), ((50, 50), "CMYK")]):
        Image.new(mode, size).save(tmp_path / "loose" / ("deeper" if index % 2 else "") / f"{index}.tif")
    data = PoisonDataModule(str(npz), unlabeled=str(tmp_path / "loose"))
    defence = data.defence(labels=False, choosing=0)
    assert next(iter(defence.train_dataloader())).images.shape == (4, 3, 16, 16)


def test_all_images_are_used_if_there_are_too_few(npz: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = PoisonDataModule(str(npz), num_held_out=20, num_unlabeled=50)
    assert (len(data.defender), len(data.defender.agreement)) == (20, 0)
    assert len(PoisonDataModule(str(npz), num_held_out=20, num_unlabeled=7).defender) == 7
    (record,) = caplog.records
    assert record.getMessage() == "num_unlabeled 50: there are 20 unlabeled images; all of them are used"


def test_files_and_memory_give_the_same_batches(folder: Path) -> None:
    def make(in_memory: bool) -> PoisonDataModule:
        attack = BadNets(target_class=1, poison_rate=0.3)
        made = PoisonDataModule(
            str(folder), attack, image_size=16, in_memory=in_memory, num_workers=1, crop_padding=0, flip=False
        )
        made.setup("fit")
        return made

    memory, files = make(True), make(False)
    for one, two in (
        (memory.train_dataloader(), files.train_dataloader()),
        *zip(memory.test_dataloader(), files.test_dataloader(), strict=True),
    ):
        assert (one.num_workers, two.num_workers) == (0, 1)
        assert all(torch.equal(a, b) for a, b in zip(everything(one), everything(two), strict=True))


def test_the_size_decides_what_is_kept_in_memory(folder: Path) -> None:
    data = PoisonDataModule(str(folder), image_size=16, num_workers=0)
    data.attacker.placement.limit = 16 * 16 * 16 * 3
    assert type(data.attacker.test[0].images).__name__ == "MemoryImages"
    assert type(data.attacker.training.images).__name__ == "FileImages"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"num_train": 0}, "num_train 0"),
        ({"source": None}, "source null"),
        ({"source": "imagenet"}, "source imagenet"),
        ({"unlabeled": "imagenet"}, "unlabeled imagenet"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        PoisonDataModule(**options)


def test_too_many_held_out_is_named(npz: Path) -> None:
    with pytest.raises(InputError, match="num_held_out 99"):
        PoisonDataModule(str(npz), num_held_out=99).train_dataloader()
