from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from bdclean.data import procedural
from bdclean.data.procedural import (
    KINDS,
    _dead_leaves,
    _fractal_noise,
    _natural_spectra,
    _random_phases,
    draw_procedural,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # As in draw_procedural, for tests of the functions that it calls.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_spectrum(fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log amplitudes of (N, S, S) as (N, M), and their M frequencies: horizontal, vertical."""
    size = fields.shape[-1]
    fy, fx = torch.meshgrid(torch.fft.fftfreq(size, 1 / size), torch.fft.rfftfreq(size, 1 / size), indexing="ij")
    radius = torch.hypot(fx, fy)
    # Each direction equally often; without the mean and the highest frequencies, which are their own mirror images.
    ring = (radius > 0) & (radius < size / 2)
    return torch.fft.rfft2(fields.double()).abs()[:, ring].log(), fx[ring].double(), fy[ring].double()


def fitted_exponent(fields: Tensor) -> Tensor:
    amplitude, fx, fy = log_spectrum(fields)
    x = torch.hypot(fx, fy).log()
    x = x - x.mean()
    return -(amplitude @ x) / (x @ x)


@pytest.mark.parametrize("size", [8, 32, 33, 224])
def test_images_have_the_requested_size_and_use_the_range(size: int):
    images = draw_procedural(18, size, seed=1)
    assert images.shape == (18, size, size, 3)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert images.amin() < 10
    assert images.amax() > 245
    assert (images / 255).std() > 0.2
    assert (images / 255).flatten(1).std(1).amin() > 0.02


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_images_can_be_drawn(count: int):
    assert draw_procedural(count, 16, seed=0).shape == (count, 16, 16, 3)


def test_the_same_seed_draws_the_same_images_and_another_seed_others():
    images = draw_procedural(60, 32, seed=5)
    assert torch.equal(images, draw_procedural(60, 32, seed=5))
    other = draw_procedural(60, 32, seed=6)
    assert (images != other).flatten(1).any(1).all()


def test_all_images_differ():
    images = draw_procedural(200, 32, seed=0).flatten(1) / 255
    distance = torch.cdist(images, images) / images.shape[1] ** 0.5
    assert (distance + torch.eye(200)).amin() > 0.03


def test_the_global_generator_is_neither_used_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    images = draw_procedural(30, 32, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(images, draw_procedural(30, 32, seed=0))


def test_the_number_of_threads_has_no_effect_and_is_restored():
    # Few images rarely show differences in rounding, so that the number of threads is checked too.
    def watched(count: int, size: int, generator: torch.Generator) -> Tensor:
        assert torch.get_num_threads() == 1
        return _natural_spectra(count, size, generator)

    threads = torch.get_num_threads()
    try:
        images = []
        for number in (1, 3):
            torch.set_num_threads(number)
            images.append(draw_procedural(60, 32, seed=0, kinds=[*KINDS[:2], watched]))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*images)


def test_a_third_is_of_each_kind_in_random_order_whatever_the_chunks():
    def constant(value: int, count: int, size: int, _: torch.Generator) -> Tensor:
        assert count <= 7
        return torch.full((count, size, size, 3), value / 255)

    draws = [partial(constant, value) for value in range(3)]
    kinds = draw_procedural(90, 8, seed=0, kinds=draws, pixels=7 * 8**2)[:, 0, 0, 0]
    assert kinds.bincount().tolist() == [30, 30, 30]
    assert (kinds.diff() != 0).sum() > 40


@pytest.mark.parametrize("draw", [_dead_leaves, _fractal_noise, _natural_spectra])
def test_the_channels_of_every_kind_are_correlated_but_not_equal(draw: Callable[[int, int, torch.Generator], Tensor]):
    red, green, blue = draw(60, 32, generator()).flatten(1, 2).unbind(-1)
    for one, other in ((red, green), (green, blue), (red, blue)):
        pairs = zip(one, other, strict=True)
        correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
        assert 0.6 < correlation.mean() < 0.98


# Natural spectra


def test_random_phases_fall_off_with_the_given_exponent():
    exponent = torch.tensor([0.5, 1.0, 2.0, 3.5])
    fields = _random_phases(exponent, torch.zeros(4, 2), 2, 64, generator())
    for channel in fields.unbind(1):
        torch.testing.assert_close(fitted_exponent(channel), exponent.double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(fields.mean((-2, -1)), torch.zeros(4, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(fields.square().mean((-2, -1)), torch.ones(4, 2))
    # Steep spectra have most of their power in few waves, so that their channels may correlate by chance.
    assert (fields[:2, 0] * fields[:2, 1]).mean((-2, -1)).abs().amax() < 0.25


def test_random_phases_fall_off_differently_by_direction():
    fields = _random_phases(torch.tensor([1.5]), torch.tensor([[0.3, -0.2]]), 1, 64, generator())[:, 0]
    (amplitude,), fx, fy = log_spectrum(fields)
    directions = ((fy == 0, 1.5 + 0.3), (fx == 0, 1.5 - 0.3), (fx == fy, 1.5 - 0.2), (fx == -fy, 1.5 + 0.2))
    for line, expected in directions:
        x, y = torch.hypot(fx, fy)[line].log(), amplitude[line]
        slope = ((x - x.mean()) @ y) / (x - x.mean()).square().sum()
        assert -slope.item() == pytest.approx(expected, abs=2e-3)
    assert fitted_exponent(fields).item() == pytest.approx(1.5, abs=0.02)


def test_the_brightness_of_natural_spectra_has_exponents_between_a_half_and_three_and_a_half():
    exponent = fitted_exponent(_natural_spectra(500, 32, generator()).mean(-1))
    assert 0.45 < exponent.amin() < 0.7
    assert 3.3 < exponent.amax() < 3.55
    assert exponent.mean().item() == pytest.approx(2, abs=0.15)


# Dead leaves


def test_leaves_cover_the_image(monkeypatch: pytest.MonkeyPatch):
    colours = procedural._colours

    def bare(count: int, per_image: int, generator: torch.Generator) -> Tensor:
        drawn = colours(count, per_image, generator)
        drawn[:, -1] = 1e4  # the background leaf
        return drawn

    monkeypatch.setattr(procedural, "_colours", bare)
    uncovered = (_dead_leaves(100, 32, generator()) > 5e3).all(-1).float().mean((-2, -1))
    assert uncovered.mean() < 0.1
    assert uncovered.median() < 0.02


def test_leaves_have_sharp_edges_and_little_inside():
    def kurtosis(images: Tensor) -> Tensor:
        steps = images.mean(-1).diff(dim=2).flatten(1)
        return (steps.pow(4).mean(1) / steps.square().mean(1).square()).median()

    leaves = _dead_leaves(20, 64, generator())
    steps = leaves.mean(-1).diff(dim=2).abs()
    assert (steps < 0.02).float().mean() > 0.4
    assert (steps > 0.2).float().mean() > 0.05
    assert kurtosis(leaves) > 6
    assert kurtosis(_natural_spectra(40, 64, generator())) < 4
