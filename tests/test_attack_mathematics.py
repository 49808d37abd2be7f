"""Each attack against a slow, obvious reference of its formula, pixel by pixel."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bdclean import attacks
from bdclean.attacks import (
    ADBA,
    LIRA,
    SCAR,
    SIG,
    SSBA,
    AdaptiveBlend,
    AdaptivePatch,
    Attack,
    Blended,
    BppAttack,
    FTrojan,
    InputAware,
    LabelConsistent,
    TrojanNN,
    WaNet,
)
from bdclean.attacks.bpp import dither, quantise
from bdclean.attacks.generators import Generator
from bdclean.attacks.input_aware import diversity_loss
from bdclean.attacks.roles import CLEAN, COVER
from bdclean.attacks.scar import output_change
from bdclean.attacks.shadow import Shadow
from bdclean.attacks.surrogate import pgd, shuffled, train_surrogate
from bdclean.attacks.trojannn import LastHidden
from bdclean.training import batch_size

NAMES = [*attacks.ATTACKS]
COLOUR_ONLY = ["ADBA", "LF", "LIRA", "Grond", "PoisonInk", "SCAR", "SSBA", "InputAware", "TrojanNN"]
SMALL: dict[str, dict[str, object]] = {
    "LIRA": {"width": 4},
    "SSBA": {"width": 4, "bits": 3, "encoder_epochs": 1.0},
    "InputAware": {"width": 4, "mask_epochs": 1.0},
    "TrojanNN": {"steps": 2, "surrogate_epochs": 1.0},
    "LabelConsistent": {"steps": 2, "surrogate_epochs": 1.0},
    "SCAR": {"trigger_epochs": 3.0, "surrogate_epochs": 1.0},
    "PoisonInk": {"width": 4, "encoder_epochs": 1.0},
    "LF": {"trigger_epochs": 3.0, "surrogate_epochs": 1.0},
    "Grond": {"trigger_epochs": 3.0, "surrogate_epochs": 1.0},
}


def random_images(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def flags(*values: bool) -> Tensor:
    return torch.tensor(values)


def none_of(images: Tensor) -> Tensor:
    """No image is cover."""
    return torch.zeros(len(images), dtype=torch.bool)


def tiny(classes: int = 2) -> nn.Sequential:
    """A network whose last layer gets positive features, as in a residual network."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes)
    )


def ready(name: str, size: int, seed: int = 3, **options: object) -> Attack:
    """An attack with everything that `apply` needs, made on a few random images."""
    attack = attacks.ATTACKS[name](target_class=1, seed=seed, **{**SMALL.get(name, {}), **options})
    if not attack.prepares:
        attack.build(size)
    elif attack.parts:
        images, labels = random_images(8, size, size, seed=9), torch.arange(8) % 2
        torch.manual_seed(seed)
        attack.prepare(images.__getitem__, labels, 2, tiny())
    return attack.eval()


# All attacks


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", NAMES)
def test_apply_returns_new_images_in_range_independently_of_the_batch(name: str, size: int) -> None:
    images = random_images(3, size, size)
    images[0, :, : size // 2] = 0
    images[1, :, : size // 2] = 1
    before = images.clone()
    attack = ready(name, size)
    with torch.no_grad():
        triggered = attack.apply(images)
        alone = torch.cat([attack.apply(images[place : place + 1]) for place in range(3)])
        reversed_ = attack.apply(images.flip(0)).flip(0)
    assert torch.equal(images, before)
    assert triggered.shape == images.shape
    assert triggered.dtype == images.dtype
    assert triggered.min() >= 0
    assert triggered.max() <= 1
    assert all(not torch.equal(one, other) for one, other in zip(triggered, images, strict=True))
    torch.testing.assert_close(alone, triggered, atol=1e-5, rtol=0)
    torch.testing.assert_close(reversed_, triggered, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trigger(name: str) -> None:
    images = random_images(2, 16, 16)
    one, other = ready(name, 16), ready(name, 16)
    with torch.no_grad():
        assert torch.equal(one.apply(images), other.apply(images))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in COLOUR_ONLY])
def test_grey_images_and_doubles(name: str) -> None:
    images = random_images(2, 16, 16, channels=1).double()
    triggered = ready(name, 16).apply(images)
    assert triggered.shape == images.shape
    assert triggered.dtype == torch.float64
    assert triggered.min() >= 0
    assert triggered.max() <= 1
    assert not torch.equal(triggered, images)


@pytest.mark.parametrize("name", ["LIRA", "SSBA", "InputAware", "WaNet", "Blended", "AdaptivePatch"])
def test_another_seed_gives_another_trigger_without_the_global_generator(name: str) -> None:
    images = random_images(2, 16, 16)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, other = (attacks.ATTACKS[name](seed=seed, **SMALL.get(name, {})) for seed in (0, 1))
    if not one.prepares:
        one.build(16)
        other.build(16)
    indices = torch.arange(2)
    with torch.no_grad():
        # One of Adaptive-Patch's four patches is random, and so is the choice of the patch.
        differ = [not torch.equal(one.apply(images), other.apply(images))]
        if not one.poisons_each_step:
            differ += [not torch.equal(*(x.poison(images, none_of(images), indices) for x in (one, other)))]
    assert any(differ)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("attack", [SIG(), Blended(), FTrojan(), WaNet(), LIRA(width=4), BppAttack(negative_ratio=0)])
def test_poisoned_training_images_equal_apply(attack: Attack) -> None:
    images = random_images(3, 16, 16)
    attack.build(16)
    with torch.no_grad():
        poisoned = attack.poison(images, none_of(images), torch.tensor([7, 0, 99999]))
        torch.testing.assert_close(poisoned, attack.apply(images), atol=1e-6, rtol=0)


# Blended


@pytest.mark.parametrize("channels", [1, 3])
def test_blended_blends_each_pixel_with_the_scaled_picture(channels: int, tmp_path: Path) -> None:
    file = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    file.save(tmp_path / "trigger.png")
    images = random_images(2, 12, 12, channels)
    attack = Blended(trigger=str(tmp_path / "trigger.png"), alpha=0.3)
    attack.build(12)
    triggered = attack.apply(images)
    picture = np.asarray(file.resize((12, 12), Image.Resampling.BILINEAR)) / 255
    for row in range(12):
        for column in range(12):
            for channel in range(channels):
                colour = picture[row, column, channel] if channels == 3 else picture[row, column].mean()
                for place in range(2):
                    expected = 0.7 * images[place, channel, row, column].item() + 0.3 * colour
                    # PIL rounds to whole grey levels.
                    assert triggered[place, channel, row, column].item() == pytest.approx(expected, abs=0.3 / 255)


def test_blended_random_picture_fills_the_image_and_the_range() -> None:
    attack = Blended(alpha=1.0)
    attack.build(32)
    picture = attack.apply(torch.zeros(1, 3, 32, 32))
    assert picture.mean().item() == pytest.approx(0.5, abs=0.03)
    assert picture.std().item() == pytest.approx(12**-0.5, abs=0.02)


# SIG


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (3, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sig_adds_a_sinusoid_of_the_column(height: int, width: int, channels: int) -> None:
    images = random_images(2, height, width, channels).double()
    triggered = SIG(delta=40, frequency=3.5).apply(images)
    for column in range(width):
        change = 40 / 255 * math.sin(2 * math.pi * column * 3.5 / width)
        for row in range(height):
            for expected, found in zip(
                images[:, :, row, column].flatten(), triggered[:, :, row, column].flatten(), strict=True
            ):
                assert found.item() == pytest.approx(min(1.0, max(0.0, expected.item() + change)), abs=1e-6)


# FTrojan


def ftrojan_reference(image: np.ndarray, side: int, places: list[int], magnitude: float) -> np.ndarray:
    """(3, H, W) through YCrCb (ITU-R BT.601), block by block through the DCT, and back."""
    luma = np.array([0.299, 0.587, 0.114])
    red, blue = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    matrix = np.stack([luma, (red - luma) / (2 * (1 - 0.299)), (blue - luma) / (2 * (1 - 0.114))])
    planes = np.einsum("ij,jhw->ihw", matrix, image)
    for channel in (1, 2):
        for top in range(0, image.shape[1], side):
            for left in range(0, image.shape[2], side):
                block = np.s_[channel, top : top + side, left : left + side]
                coefficients = scipy.fft.dctn(planes[block], type=2, norm="ortho")
                for place in places:
                    coefficients[place, place] += magnitude / 255
                planes[block] = scipy.fft.idctn(coefficients, type=2, norm="ortho")
    return np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), planes).clip(0, 1)


@pytest.mark.parametrize(
    ("height", "width", "window", "side", "places"),
    [
        (32, 32, 32, 32, [15, 31]),
        (64, 32, 32, 32, [15, 31]),
        (64, 64, 32, 32, [15, 31]),
        # One block, and the same shares of the highest frequency.
        (16, 16, 32, 16, [7, 15]),
        (16, 24, 8, 8, [3, 7]),
    ],
)
def test_ftrojan_adds_to_chroma_coefficients(
    height: int, width: int, window: int, side: int, places: list[int]
) -> None:
    images = random_images(2, height, width)
    triggered = FTrojan(magnitude=50, window=window).apply(images)
    for image, found in zip(images, triggered, strict=True):
        expected = ftrojan_reference(image.double().numpy(), side, places, 50)
        assert np.abs(found.numpy() - image.numpy()).max() > 0.01
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_ftrojan_on_grey_images_adds_to_their_own_coefficients() -> None:
    image = 0.25 + 0.5 * random_images(1, 32, 32, 1)
    coefficients = scipy.fft.dctn(image[0, 0].double().numpy(), norm="ortho")
    found = scipy.fft.dctn(FTrojan(magnitude=30).apply(image)[0, 0].double().numpy(), norm="ortho")
    for row in range(32):
        for column in range(32):
            added = 30 / 255 if row == column and row in (15, 31) else 0
            assert found[row, column] == pytest.approx(coefficients[row, column] + added, abs=1e-5)


# BppAttack


def dithered(channel: np.ndarray, levels: int) -> np.ndarray:
    """The textbook form of Floyd and Steinberg's error diffusion."""
    values = channel.astype(np.float64).copy()
    height, width = values.shape
    for y in range(height):
        for x in range(width):
            old = values[y, x]
            new = min(range(levels), key=lambda level: abs(level / (levels - 1) - old)) / (levels - 1)
            values[y, x] = new
            error = old - new
            for below, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if y + below < height and 0 <= x + right < width:
                    values[y + below, x + right] += error * share / 16
    return values


@pytest.mark.parametrize("levels", [2, 8])
@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (5, 13), (13, 5), (9, 1), (1, 9), (7, 2), (2, 7), (1, 1), (1, 2), (2, 1), (3, 3)]
)
def test_dither_matches_floyd_steinberg(height: int, width: int, levels: int) -> None:
    images = random_images(2, height, width).double()
    found = dither(images, levels)
    for place in range(2):
        for channel in range(3):
            expected = dithered(images[place, channel].numpy(), levels)
            np.testing.assert_allclose(found[place, channel].numpy(), expected, atol=1e-12)


def test_dither_of_64_pixels_keeps_the_mean() -> None:
    images = torch.full((1, 3, 64, 64), 0.37)
    assert dither(images, 2).mean().item() == pytest.approx(0.37, abs=0.01)
    assert set(dither(images, 2).flatten().tolist()) == {0.0, 1.0}
    assert quantise(images, 2).max() == 0


@pytest.mark.parametrize("levels", [2, 8, 256])
def test_bpp_without_dithering_rounds_to_the_nearest_level(levels: int) -> None:
    images = random_images(2, 5, 6).double()
    for value, found in zip(
        images.flatten(), BppAttack(levels=levels, dithering=False).apply(images).flatten(), strict=True
    ):
        nearest = min((level / (levels - 1) for level in range(levels)), key=lambda x: abs(x - value.item()))
        assert found.item() == pytest.approx(nearest, abs=1e-9)


@pytest.mark.parametrize("dithering", [False, True])
def test_bpp_cover_gets_the_error_of_a_training_image(dithering: bool) -> None:
    training = random_images(12, 6, 7)
    attack = BppAttack(levels=4, dithering=dithering)
    torch.manual_seed(0)
    attack.prepare(training.__getitem__, torch.arange(12) % 2, 2, tiny())
    errors = attack.apply(training) - training
    images, cover = random_images(6, 6, 7, seed=1), flags(True, False, True, True, False, True)
    poisoned = attack.poison(images, cover, torch.tensor([0, 1, 5, 11, 12, 40]))
    sources = set()
    for place in range(6):
        if not cover[place]:
            assert torch.equal(poisoned[place], attack.apply(images)[place])
            continue
        away = [(poisoned[place] - (images[place] + error).clamp(0, 1)).abs().max().item() for error in errors]
        assert min(away) < 0.51 / 255  # kept in whole grey levels
        sources.add(away.index(min(away)))
    assert len(sources) > 1


def test_bpp_cover_never_gets_its_own_error() -> None:
    training = random_images(40, 6, 7)
    attack = BppAttack(levels=4)
    torch.manual_seed(0)
    attack.prepare(training.__getitem__, torch.arange(40) % 2, 2, tiny())
    numbers = torch.arange(40)
    poisoned = attack.poison(training, torch.ones(40, dtype=torch.bool), numbers)
    assert ((poisoned - attack.apply(training)).abs().flatten(1).amax(1) > 0.01).all()


# WaNet


def bilinear(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """(C,) the bilinear interpolation of an image."""
    top, left = math.floor(row), math.floor(column)
    total = np.zeros(len(image))
    for y in (top, top + 1):
        for x in (left, left + 1):
            weight = (1 - abs(row - y)) * (1 - abs(column - x))
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                total += weight * image[:, y, x]
    return total


@pytest.mark.parametrize(("height", "width", "rescale"), [(16, 16, 1.0), (12, 20, 1.0), (20, 12, 0.9), (64, 64, 1.0)])
def test_wanet_samples_where_the_field_points(height: int, width: int, rescale: float) -> None:
    images = random_images(1 if height == 64 else 2, height, width).double()
    attack = WaNet(s=1.5, k=4, grid_rescale=rescale, seed=5)
    assert attack.field.abs().mean().item() == pytest.approx(1)
    assert attack.field.min() < 0 < attack.field.max()
    field = F.interpolate(attack.field.double(), (height, width), mode="bicubic", align_corners=True)[0].numpy()
    triggered = attack.apply(images).numpy()
    for row in range(height):
        for column in range(width):
            across = (-1 + 2 * column / (width - 1) + 1.5 / 32 * field[0, row, column]) * rescale
            down = (-1 + 2 * row / (height - 1) + 1.5 / 32 * field[1, row, column]) * rescale
            across, down = min(1.0, max(-1.0, across)), min(1.0, max(-1.0, down))
            for image, found in zip(images.numpy(), triggered, strict=True):
                expected = bilinear(image, (down + 1) / 2 * (height - 1), (across + 1) / 2 * (width - 1))
                np.testing.assert_allclose(found[:, row, column], expected, atol=1e-5)


def test_wanet_noise_is_at_most_half_a_pixel_and_new_in_every_call() -> None:
    # Each pixel contains its own position, so the warped image shows the source of each pixel.
    size = 32
    places = torch.linspace(0, 1, size)
    image = torch.stack([places.expand(size, -1), places[:, None].expand(-1, size), torch.zeros(size, size)])
    images, cover = image.expand(4, -1, -1, -1).contiguous(), flags(True, False, True, False)
    attack = WaNet(seed=2)
    torch.manual_seed(0)
    first, second = (attack.poison(images, cover, torch.arange(4)) for _ in range(2))
    warped = attack.apply(images)
    torch.testing.assert_close(first[~cover], warped[~cover])
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[2])
    shift = ((first - warped)[cover, :2] * (size - 1))[..., 4:-4, 4:-4]
    # The paper adds numbers from -1 to 1 by the image's side to positions whose range is 2.
    half = (size - 1) / (2 * size)
    assert shift.abs().max() <= half + 1e-4
    assert shift.abs().mean().item() == pytest.approx(half / 2, rel=0.1)
    assert shift.mean().item() == pytest.approx(0, abs=0.03)
    neighbours = torch.corrcoef(torch.stack([shift[..., 1:].flatten(), shift[..., :-1].flatten()]))
    assert neighbours[0, 1].abs() < 0.1


# InputAware


def test_diversity_loss_is_the_mean_ratio_of_distances_between_neighbours() -> None:
    images, answers = random_images(5, 4, 6), random_images(5, 4, 6, 1, seed=1)
    total = 0.0
    for place in range(5):
        before = (place - 1) % 5
        apart = math.sqrt(np.mean((images[place].numpy() - images[before].numpy()) ** 2))
        answered = math.sqrt(np.mean((answers[place].numpy() - answers[before].numpy()) ** 2))
        total += apart / answered
    # The implementation avoids dividing by 0.
    assert diversity_loss(images, answers).item() == pytest.approx(total / 5, rel=0.01)
    same = answers[:1].expand(5, -1, -1, -1).clone().requires_grad_()
    alike = diversity_loss(images, same)
    assert alike > 10 * total / 5
    torch.autograd.backward(alike)
    assert same.grad is not None
    assert same.grad.isfinite().all()


@torch.no_grad()
def test_input_aware_cover_has_the_trigger_of_the_previous_image() -> None:
    attack = InputAware(width=4, seed=1)
    images, cover = random_images(5, 12, 10), flags(True, False, True, True, False)
    poisoned = attack.poison(images, cover, torch.arange(5))
    for place in range(5):
        source = images[(place - 1) % 5 if cover[place] else place][None]
        mask, pattern = attack.mask(source), attack.pattern(source)
        expected = (1 - mask) * images[place] + mask * pattern
        torch.testing.assert_close(poisoned[place], expected[0], atol=1e-5, rtol=0)
        assert torch.allclose(poisoned[place], attack.apply(images)[place], atol=1e-5) == (not cover[place])


@torch.no_grad()
def test_input_aware_cover_in_a_batch_of_one_does_not_have_its_own_trigger() -> None:
    # With its own trigger and its true label, it would train the network to ignore the trigger.
    attack = InputAware(width=4)
    images = random_images(1, 12, 12)
    assert not torch.allclose(attack.poison(images, flags(True), torch.arange(1)), attack.apply(images), atol=1e-3)


def test_input_aware_penalty_is_weighted_and_only_trains_the_pattern_network() -> None:
    attack = InputAware(width=4, lambda_div=2.5)
    images = random_images(4, 8, 8)
    some = torch.cat([random_images(1, *images.shape[-2:], seed=8), images])
    places = torch.arange(1, len(some))
    targets = torch.zeros(len(some), dtype=torch.long)
    penalty = attack.penalty(some, places, targets, tiny())
    assert isinstance(penalty, Tensor)
    assert penalty.item() == pytest.approx(2.5 * diversity_loss(images, attack.pattern(images)).item(), rel=1e-5)
    assert attack.penalty(some, places[:1], targets, tiny()) == 0
    torch.autograd.backward(penalty + attack.apply(images).sum())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in attack.pattern_network.parameters())
    assert all(x.grad is None and not x.requires_grad for x in attack.mask_network.parameters())
    learning = {id(x) for group in attack.optimizer().param_groups for x in group["params"]}
    assert learning == {id(x) for x in attack.pattern_network.parameters()}


def test_input_aware_masks_shrink_in_preparation_and_are_then_frozen() -> None:
    attack = InputAware(width=4, mask_epochs=40, mask_density=0.05)
    training, images = random_images(32, 8, 8), random_images(8, 8, 8, seed=1)
    before = attack.mask(images).mean()
    patterns = [x.clone() for x in attack.pattern_network.parameters()]
    torch.manual_seed(0)
    attack.prepare(training.__getitem__, torch.arange(32) % 2, 2, tiny())
    masks = attack.mask(images)
    assert masks.mean() < 0.15
    assert masks.mean() < before / 2
    assert not any(x.requires_grad for x in attack.mask_network.parameters())
    assert all(x.requires_grad for x in attack.pattern_network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(patterns, attack.pattern_network.parameters(), strict=True))


# LIRA


def test_lira_adds_a_bounded_differentiable_perturbation() -> None:
    attack = LIRA(eps=5, width=4, seed=2)
    images = random_images(3, 10, 14)
    images[0, :, 0] = 0
    images[1, :, 0] = 1
    triggered = attack.apply(images)
    assert (triggered - images).abs().max() <= 5 / 255 + 1e-6
    with torch.no_grad():
        maps = attack.network(images)
    for value, change, found in zip(images.flatten(), maps.flatten(), triggered.flatten(), strict=True):
        expected = value.item() + 5 / 255 * math.tanh(change.item())
        assert found.item() == pytest.approx(min(1.0, max(0.0, expected)), abs=1e-6)
    torch.autograd.backward(tiny()(triggered).square().sum())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in attack.network.parameters())
    assert any(x.grad is not None and x.grad.abs().max() > 0 for x in attack.network.parameters())


# The generator


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 13), (64, 5)])
def test_generator_keeps_the_size_and_processes_images_independently_in_every_mode(height: int, width: int) -> None:
    torch.manual_seed(0)
    network = Generator(4, 2, width=4)
    images = random_images(3, height, width, 4)
    with torch.no_grad():
        together = network.train()(images)
        assert together.shape == (3, 2, height, width)
        assert together.min() < 0
        for place in range(3):
            torch.testing.assert_close(network.eval()(images[place : place + 1])[0], together[place])


# LabelConsistent and its clean network


def test_pgd_reaches_the_corner_of_the_ball_on_a_linear_network() -> None:
    torch.manual_seed(0)
    last = nn.Linear(3 * 4 * 5, 2)
    network = nn.Sequential(nn.Flatten(), last)
    images, labels = random_images(6, 4, 5), torch.tensor([0, 1, 1, 0, 0, 1])
    images[:, :, 0], images[:, :, 3] = 0, 1
    found = pgd(network, images, labels, eps=0.1, step=0.03, steps=8)
    weight = last.weight.detach().reshape(2, 3, 4, 5)
    for place, label in enumerate(labels.tolist()):
        uphill = weight[1 - label] - weight[label]
        for channel in range(3):
            for row in range(4):
                for column in range(5):
                    moved = images[place, channel, row, column] + math.copysign(0.1, uphill[channel, row, column])
                    expected = min(1.0, max(0.0, moved.item()))
                    assert found[place, channel, row, column].item() == pytest.approx(expected, abs=1e-6)


def test_pgd_stays_in_the_ball_for_any_step_and_increases_the_loss() -> None:
    torch.manual_seed(0)
    network, images, labels = tiny(5), random_images(8, 8, 8), torch.arange(8) % 5
    for step, steps in ((0.001, 1), (0.02, 5), (0.5, 3)):
        found = pgd(network, images, labels, eps=0.06, step=step, steps=steps)
        assert (found - images).abs().max() <= 0.06 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        assert not found.requires_grad
    losses = [F.cross_entropy(network(x), labels) for x in (images, pgd(network, images, labels, 0.06, 0.02, 5))]
    assert losses[1] > losses[0]


@pytest.mark.parametrize(("size", "side"), [(16, 3), (32, 3), (64, 6)])
def test_label_consistent_puts_a_3x3_checkerboard_into_each_corner(size: int, side: int) -> None:
    images = random_images(1, size, size)
    triggered = LabelConsistent(margin=1).apply(images)[0]
    for row in range(size):
        for column in range(size):
            inner = [place if place < size // 2 else place - (size - side - 2) for place in (row, column)]
            expected = images[0, :, row, column]
            if all(1 <= place <= side for place in inner):
                fields = [(place - 1) // (side // 3) for place in inner]
                expected = torch.full((3,), float(sum(fields) % 2))
            assert torch.equal(triggered[:, row, column], expected)


def test_label_consistent_perturbs_images_of_the_target_class_within_eps() -> None:
    # Bright and dark images, which one step of training tells apart.
    labels = torch.arange(40) % 2
    training = 0.3 + 0.2 * labels[:, None, None, None] + 0.2 * random_images(40, 9, 9)
    attack = LabelConsistent(target_class=1, poison_rate=0.5, eps=8, surrogate_epochs=20, surrogate_lr=0.05)
    torch.manual_seed(0)
    network = tiny()
    attack.prepare(training.__getitem__, labels, 2, network)
    chosen = (attack.choose(labels, 2) == 1).nonzero().squeeze(1)
    assert len(chosen) == 10
    assert labels[chosen].eq(1).all()
    corners = attack.apply(torch.full((1, 3, 9, 9), 0.5)) != 0.5
    assert corners.sum() == 3 * 4 * 9
    order = chosen.flip(0)
    poisoned = attack.poison(training[order], none_of(order), order)
    for index, image in zip(order.tolist(), poisoned, strict=True):
        change = (image - training[index])[~corners[0]].abs()
        assert change.max() <= 8.5 / 255 + 1e-6
        # Well-trained or not: it moves most pixels to the edge of the ball.
        assert change.median() > 7 / 255
        others = [(image - training[other])[~corners[0]].abs().max() for other in range(40) if other != index]
        assert min(others) > 8.5 / 255
        assert torch.equal(image[corners[0]], attack.apply(training[index : index + 1])[0][corners[0]])
    assert attack.perturbed is not None
    before, after = (F.cross_entropy(network(x), labels[chosen]) for x in (training[chosen], attack.perturbed / 255))
    assert after > before


def test_surrogate_learns_and_is_left_in_eval_mode_without_gradients() -> None:
    labels = torch.arange(200) % 2
    images = 0.5 * labels[:, None, None, None] + 0.5 * random_images(200, 4, 4)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 2))
    trained = train_surrogate(network, images.__getitem__, labels, epochs=10, lr=0.1)
    assert trained is network
    assert not any(module.training for module in network.modules())
    assert not any(x.requires_grad for x in network.parameters())
    assert (network(images).argmax(1) == labels).all()


@pytest.mark.parametrize(("count", "epochs", "seen"), [(300, 1, 300), (300, 2.5, 750), (300, 0.1, 30), (5, 0.01, 1)])
def test_shuffled_gives_every_number_once_an_epoch(count: int, epochs: float, seen: int) -> None:
    torch.manual_seed(0)
    batches = list(shuffled(torch.zeros(count, 3, 8, 8).__getitem__, count, epochs, "Counting"))
    lengths = [len(batch) for batch in batches]
    assert max(lengths) <= 128
    assert max(lengths) - min(lengths) <= 1
    numbers = torch.cat(batches).tolist()
    assert len(numbers) == seen
    parts = [numbers[start : start + count] for start in range(0, seen, count)]
    for part in parts:
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(count))
    assert len({tuple(part[:50]) for part in parts}) == len(parts)
    assert count == 5 or numbers[:30] != sorted(numbers[:30])


def test_fewer_large_images_at_once() -> None:
    assert batch_size(torch.zeros(1, 3, 64, 64)) == 128
    assert batch_size(torch.zeros(1, 3, 128, 128)) == 32
    assert batch_size(torch.zeros(1, 3, 1024, 1024)) == 8


# AdaptiveBlend


@pytest.mark.parametrize(("height", "width", "kept", "pieces"), [(16, 16, 0.5, 4), (18, 23, 0.25, 4), (64, 64, 0.5, 3)])
def test_adaptive_blend_has_some_pieces_in_training_and_all_in_tests(
    height: int, width: int, kept: float, pieces: int
) -> None:
    attack = AdaptiveBlend(alpha=0.4, training_alpha=0.15, kept_fraction=kept, pieces=pieces, seed=4)
    attack.build(max(height, width))
    picture = attack.apply(torch.zeros(1, 3, height, width))[0] / 0.4
    images, indices = random_images(6, height, width), torch.tensor([0, 1, 17, 4000, 50_000, 3])
    torch.testing.assert_close(attack.apply(images), 0.6 * images + 0.4 * picture)
    poisoned = attack.poison(images, none_of(images), indices)
    chosen = []
    for image, found in zip(images, poisoned, strict=True):
        pieces_of_it = set()
        for number in range(pieces**2):
            rows = [y for y in range(height) if y * pieces // height == number // pieces]
            columns = [x for x in range(width) if x * pieces // width == number % pieces]
            cut = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if not torch.equal(found[cut], image[cut]):
                torch.testing.assert_close(found[cut], 0.85 * image[cut] + 0.15 * picture[cut], atol=1e-5, rtol=0)
                pieces_of_it.add(number)
        assert len(pieces_of_it) == round(kept * pieces**2)
        chosen.append(tuple(sorted(pieces_of_it)))
    assert len(set(chosen)) >= 5
    order = torch.tensor([5, 2, 0])
    assert torch.equal(attack.poison(images[order], none_of(order), indices[order]), poisoned[order])


def test_adaptive_blend_keeps_each_piece_equally_often() -> None:
    attack = AdaptiveBlend()
    share = attack.masks(torch.zeros(1, 3, 4, 4), torch.arange(2000)).mean((0, 1))
    assert (share - 0.5).abs().max() < 0.05


# AdaptivePatch


@pytest.mark.parametrize(("size", "side", "channels"), [(16, 6, 3), (64, 12, 3), (32, 6, 1)])
def test_adaptive_patch_has_one_faint_patch_in_training_and_two_strong_ones_in_tests(
    size: int, side: int, channels: int
) -> None:
    attack, clear = AdaptivePatch(seed=1), AdaptivePatch(seed=1, training_opacity=1.0)
    images, indices = 0.3 + 0.4 * random_images(40, size, size, channels), torch.arange(100, 140)
    poisoned = attack.poison(images, none_of(images), indices)
    colours = clear.poison(images, none_of(images), indices)
    far = size - 1 - side
    corners = {(top, left) for top in (1, far) for left in (1, far)}
    used = []
    for image, found, colour in zip(images, poisoned, colours, strict=True):
        changed = (found != image).any(0)
        places = [(top, left) for top, left in corners if changed[top : top + side, left : left + side].any()]
        assert len(places) == 1
        ((top, left),) = places
        expected = image.clone()
        for row in range(top, top + side):
            for column in range(left, left + side):
                expected[:, row, column] = 0.5 * image[:, row, column] + 0.5 * colour[:, row, column]
        torch.testing.assert_close(found, expected)
        used.append((top, left))
    assert set(used) == corners
    assert torch.equal(attack.poison(images.flip(0), none_of(images), indices.flip(0)), poisoned.flip(0))
    # In test images: opaque, and the same patches as in training.
    black, white = (attack.apply(torch.full((1, channels, size, size), value))[0] for value in (0.0, 1.0))
    same = (black == white).all(0)
    assert same.sum() == 2 * side**2
    for top, left in corners:
        region = np.s_[top : top + side, left : left + side]
        assert same[region].all() or not same[region].any()
        if same[region].all():
            there = colours[used.index((top, left))]
            torch.testing.assert_close(black[:, region[0], region[1]], there[:, region[0], region[1]])


def test_adaptive_patches_are_drawn_equally_often() -> None:
    images = torch.full((1, 3, 16, 16), 0.5).expand(2000, -1, -1, -1)
    changed = (AdaptivePatch().poison(images, none_of(images), torch.arange(2000)) != 0.5).any(1).float().mean(0)
    for half in (changed[:8], changed[8:]):
        for quarter in (half[:, :8], half[:, 8:]):
            assert 0.2 < quarter.max() < 0.3


# TrojanNN


def test_trojannn_patch_excites_the_neurons_with_the_largest_weights() -> None:
    training, labels = random_images(64, 16, 16), torch.arange(64) % 2
    attack = TrojanNN(neurons=2, steps=60, lr=0.05, surrogate_epochs=1, surrogate_lr=0.01)
    torch.manual_seed(0)
    network = tiny()
    attack.prepare(training.__getitem__, labels, 2, network)
    assert attack.patch is not None
    assert attack.patch.shape == (3, 6, 6)
    assert attack.patch.min() >= 0
    assert attack.patch.max() <= 1
    weight = LastHidden(network).weight
    sums = [sum(abs(weight[answer, neuron].item()) for answer in range(2)) for neuron in range(12)]
    chosen = sorted(range(12), key=lambda neuron: sums[neuron])[-2:]

    def excited(patch: Tensor) -> float:
        stamped = torch.full((1, 3, 16, 16), 0.5)
        stamped[..., 9:15, 9:15] = patch
        with torch.no_grad():
            hidden = network[:4](stamped)[0]
        return sum(hidden[neuron].item() for neuron in chosen)

    ours = excited(attack.patch)
    assert ours > max(excited(torch.rand(3, 6, 6)) for _ in range(20))


def test_trojannn_patch_scales_with_the_image_and_nothing_else_changes() -> None:
    attack = ready("TrojanNN", 64, position="top-right", margin=2)
    assert isinstance(attack, TrojanNN)
    images = random_images(2, 64, 64)
    expected = images.clone()
    assert attack.patch is not None
    expected[..., 2:14, 50:62] = attack.patch
    assert torch.equal(attack.apply(images), expected)


def test_trojannn_neurons_reach_a_feasible_goal() -> None:
    # One neuron, the mean of the image: a patch of 6 x 6 pixels of 8 x 8 can make it anything from .22 to .78.
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(1, 2)

        def forward(self, images: Tensor) -> Tensor:
            answer: Tensor = self.last(images.flatten(1).mean(1, keepdim=True))
            return answer

    training = random_images(10, 8, 8)
    largest = max(image.mean().item() for image in training)
    attack = TrojanNN(neurons=1, excitation=0.7 / largest, steps=150, lr=0.05, margin=0, surrogate_epochs=1)
    torch.manual_seed(0)
    network = Mean()
    attack.prepare(training.__getitem__, torch.arange(10) % 2, 2, network)
    assert attack.apply(torch.full((1, 3, 8, 8), 0.5)).mean().item() == pytest.approx(0.7, abs=0.01)


def test_last_hidden_returns_the_inputs_of_the_last_linear_layer() -> None:
    torch.manual_seed(0)
    network = tiny().eval()
    images = random_images(3, 8, 8)
    hidden = LastHidden(network)
    torch.testing.assert_close(hidden(images), network[:4](images))
    assert hidden.weight is network[4].weight


# SSBA


def test_ssba_perturbation_is_bounded_and_depends_on_image_and_secret() -> None:
    training, labels = random_images(32, 8, 8), torch.arange(32) % 2
    images = 0.2 + 0.6 * random_images(4, 8, 8, seed=1)
    found = {}
    for secret in ("one", "another"):
        attack = SSBA(secret=secret, bits=8, width=4, strength=10, encoder_epochs=10, image_weight=0)
        torch.manual_seed(0)
        attack.prepare(training.__getitem__, labels, 2, tiny())
        assert not any(x.requires_grad for x in attack.parameters())
        found[secret] = attack.apply(images) - images
        assert 1e-3 < found[secret].abs().max() <= 10 / 255 + 1e-6
        bits = torch.tensor([attack.message]).expand(4, -1)
        assert torch.equal(attack.encode(images, bits), attack.apply(images))
        assert set(attack.message) == {0.0, 1.0}
    # Both encoders are the same: only the bits differ.
    assert (found["one"] - found["another"]).abs().max() > 1e-3
    assert all((found["one"][place] - found["one"][0]).abs().max() > 1e-3 for place in range(1, 4))


def busy_images(count: int, seed: int) -> Tensor:
    """Colours that change slowly from corner to corner, and as much noise."""
    smooth = F.interpolate(random_images(count, 2, 2, seed=seed), (8, 8), mode="bilinear", align_corners=True)
    return 0.2 + 0.24 * smooth + 0.36 * random_images(count, 8, 8, seed=seed + 1)


def test_ssba_bits_can_be_read_without_the_original() -> None:
    training = busy_images(128, 0)
    attack = SSBA(bits=2, width=4, strength=16, encoder_epochs=120, encoder_lr=0.01, image_weight=1)

    def hidden(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        bits = torch.randint(2, (count, 2), generator=torch.Generator().manual_seed(seed)).float()
        with torch.no_grad():
            pixels = attack.encode(busy_images(count, seed + 2), bits)
        return np.c_[pixels.flatten(1).double().numpy(), np.ones(count)], bits.numpy()

    def read() -> float:
        # By a linear decoder that was fitted on other images.
        seen, written = hidden(1000, 10)
        reader = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(seen.shape[1]), seen.T @ written)
        fresh, expected = hidden(300, 20)
        return float(((fresh @ reader > 0.5) == expected).mean())

    assert read() < 0.85
    torch.manual_seed(0)
    attack.prepare(training.__getitem__, torch.arange(128) % 2, 2, tiny())
    assert read() > 0.95


def test_ssba_perturbation_shrinks_with_its_weight() -> None:
    images, sizes = busy_images(32, 0), []
    for weight in (0, 10_000):
        attack = SSBA(bits=2, width=4, strength=16, encoder_epochs=40, encoder_lr=0.01, image_weight=weight)
        torch.manual_seed(0)
        attack.prepare(images.__getitem__, torch.arange(32) % 2, 2, tiny())
        sizes.append((attack.apply(images) - images).square().mean().item())
    assert sizes[1] < sizes[0] / 4


# ADBA, SCAR, and the shadow beside both


def test_a_shadow_learns_the_networks_logits_and_is_not_part_of_the_attack() -> None:
    torch.manual_seed(0)
    attack, network = ADBA(shadow_lr=0.5), tiny()
    attack.setup_auxiliary(tiny)
    shadow = attack.shadow
    assert shadow is not None
    assert set(attack.state_dict()) == {"mask", "pattern"}
    images, targets = random_images(16, 8, 8), torch.zeros(16, dtype=torch.long)
    with torch.no_grad():
        network[-1].weight.mul_(20)
        before = float(shadow.loss(images, network(images)))
    for _ in range(60):
        attack.penalty(images, torch.arange(2), targets, network)
    with torch.no_grad():
        assert float(shadow.loss(images, network(images))) < before / 4


def test_adba_blends_the_pattern_by_the_mask() -> None:
    attack = ADBA(seed=3)
    images = random_images(2, 32, 32)
    mask, pattern = attack.mask.detach().sigmoid(), attack.pattern.detach().sigmoid()
    expected = images * (1 - mask) + mask * pattern
    torch.testing.assert_close(attack.apply(images).detach(), expected, atol=1e-6, rtol=0)


def test_adba_penalty_is_the_shadows_loss_and_the_mask_size_weighted_by_success() -> None:
    torch.manual_seed(0)
    attack = ADBA(target_class=1, mask_weight=3.0, shadow_weight=2.0)
    attack.setup_auxiliary(tiny)
    assert attack.shadow is not None
    images, places, targets = random_images(6, 32, 32), torch.tensor([1, 4]), torch.tensor([0, 1, 0, 0, 1, 0])
    penalty = attack.penalty(images, places, targets, tiny())
    assert isinstance(penalty, Tensor)
    shares = attack.shadow.logits(attack.apply(images[places])).softmax(1)[:, 1]
    works = (shares[0] * shares[1]).sqrt()
    expected = -shares.log().sum() + 3 * float(works) * attack.mask.sigmoid().mean()
    torch.testing.assert_close(penalty, expected)
    (slope,) = torch.autograd.grad(expected, [attack.mask])
    attack.shadow.optimizer.zero_grad()
    torch.autograd.backward(penalty)
    torch.testing.assert_close(attack.mask.grad, slope)
    assert attack.pattern.grad is not None
    assert all(weight.grad is None for weight in attack.shadow.parameters)


def test_scar_flips_clean_networks_to_the_target_within_its_bound() -> None:
    # The trained network predicts class 1 for bright images.
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    images = 0.25 * random_images(64, 16, 16) + 0.15 * labels.view(-1, 1, 1, 1) + 0.3
    attack = SCAR(target_class=1, eps=60, trigger_epochs=40, trigger_lr=4, surrogate_epochs=60, surrogate_lr=0.5)
    attack.prepare(images.__getitem__, labels, 2, tiny())
    assert attack.perturbation is not None
    assert attack.perturbation.abs().max() <= 60 / 255 + 1e-6
    assert attack.perturbation.mean() > 0.15
    changed = attack.apply(torch.full((1, 3, 32, 32), 0.5)) - 0.5
    torch.testing.assert_close(changed[0], attack.perturbation)
    # No image loses its label.
    assert set(attack.choose(labels.repeat(10), 2).tolist()) == {CLEAN, COVER}


def test_output_change_matches_an_unrolled_least_squares_step() -> None:
    torch.manual_seed(0)
    images = random_images(8, 4, 4).double()
    student = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    shadow = Shadow(student, 0.05)
    loss = F.cross_entropy(shadow.network(images * 0.5), torch.zeros(8, dtype=torch.long))
    found = output_change(loss, shadow, images)

    rate = 1e-6
    told = shadow.network(images).detach().requires_grad_()
    weights = {name: value.detach().requires_grad_() for name, value in shadow.network.named_parameters()}
    inner = (torch.func.functional_call(shadow.network, weights, (images,)) - told).square().sum() / 2
    slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    moved = {name: value - rate * slope for (name, value), slope in zip(weights.items(), slopes, strict=True)}
    answers = torch.func.functional_call(shadow.network, moved, (images * 0.5,))
    reached = F.cross_entropy(answers, torch.zeros(8, dtype=torch.long))
    (expected,) = torch.autograd.grad(reached, told)
    assert expected.abs().max() > 1e-3 * rate
    torch.testing.assert_close(found, expected / rate, rtol=1e-5, atol=1e-9)


def test_the_gradient_of_a_scar_shadow_scales_with_its_accuracy() -> None:
    torch.manual_seed(0)
    attack = ready("SCAR", 16, shadow_weight=0.25)
    assert isinstance(attack, SCAR)
    attack.setup_auxiliary(tiny)
    images, targets = random_images(6, 16, 16), torch.arange(6) % 2
    answers = tiny()(images).detach().requires_grad_()
    penalty = attack.penalty(images, torch.tensor([0]), targets, lambda _: answers)
    (told,) = torch.autograd.grad(penalty, answers)
    (own,) = torch.autograd.grad(F.cross_entropy(answers, targets), answers)
    (shadow,) = attack.learning
    known = (shadow.logits(images).argmax(1) == targets).float().mean()
    assert known > 0
    torch.testing.assert_close(told.norm(), 0.25 * known * own.norm())
    assert not attack.trains_trigger


def test_scar_trains_only_the_network() -> None:
    torch.manual_seed(0)
    attack, network = ready("SCAR", 16), tiny()
    assert isinstance(attack, SCAR)
    attack.setup_auxiliary(tiny)
    images, targets = random_images(6, 16, 16), torch.arange(6) % 2
    penalty = attack.penalty(images, torch.tensor([0]), targets, network)
    (shadow,) = attack.learning
    shadow.optimizer.zero_grad()
    torch.autograd.backward(penalty)
    assert any(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())
    assert all(weight.grad is None for weight in shadow.parameters)


def test_copying_scar_does_not_copy_its_training_module() -> None:
    class Module:
        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("copied, with all its images")

        def untrained(self) -> nn.Module:
            return tiny()

    attack = ready("SCAR", 16)
    attack.setup_auxiliary(Module().untrained)
    attack.penalty(random_images(6, 16, 16), torch.tensor([0]), torch.arange(6) % 2, tiny())
    # As if images were on another device than the attack.
    assert torch.equal(copy.deepcopy(attack).perturbation, attack.perturbation)


def test_shadows_of_scar_have_different_ages_and_are_replaced() -> None:
    torch.manual_seed(0)
    attack = ready("SCAR", 16, shadows=3, shadow_life=6)
    assert isinstance(attack, SCAR)
    attack.setup_auxiliary(tiny)
    images, targets = random_images(6, 16, 16), torch.arange(6) % 2
    ages: dict[Shadow, int] = {}
    seen = []
    for _ in range(10):
        attack.penalty(images, torch.tensor([0]), targets, tiny())
        ages = {shadow: ages.get(shadow, 0) + 1 for shadow in attack.learning}
        seen.append(list(ages.values()))
    assert seen == [[1], [2], [3, 1], [4, 2], [5, 3, 1], [6, 4, 2], [5, 3, 1], [6, 4, 2], [5, 3, 1], [6, 4, 2]]
