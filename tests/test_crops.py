"""Scans of large images by their central quarter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bdclean.scanning import DenseInversion, MaximumMargin, PatchInversion, scan, scan_passes
from bdclean.scanning.base import Detector
from bdclean.scanning.crops import crop, crops


def colours(images: Tensor) -> Tensor:
    """The classes are the colours red, green and blue, and a fourth one that a white corner gives."""
    means = images.mean((2, 3))
    # Anywhere in the image, as a network with global pooling sees a patch.
    white = nn.functional.avg_pool2d(images.amin(1, keepdim=True), 12, 4).amax((1, 2, 3))
    return torch.cat([10 * means, 40 * (white[:, None] - 0.6)], 1)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shade = torch.rand(24, 3, 1, 1, generator=generator)
    return 0.5 * shade + 0.1 * torch.rand(24, 3, 128, 128, generator=generator)


def test_networks_that_classify_crops_are_searched_on_crops(images: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 4)).requires_grad_(False)

    def by_corner(images: Tensor) -> Tensor:
        """Predictions that depend on what a crop has not."""
        size = nn.functional.one_hot(torch.tensor(images.shape[-1] // 64), 4)
        return size.float().expand(len(images), 4)

    found = crops(colours, images)
    assert found is not None
    assert torch.equal(found, images[..., 32:96, 32:96])
    assert crops(colours, images[..., :64, :64]) is None
    assert crops(linear, images) is None
    assert crops(by_corner, images) is None
    assert crops(lambda images: colours(images) / (images.shape[-1] > 100), images) is None


def test_scores_are_of_crops_and_triggers_of_whole_images(images: Tensor) -> None:
    shapes = []

    def network(images: Tensor) -> Tensor:
        shapes.append(images.shape[-1])
        return colours(images)

    (finding,) = scan(network, images, 4, [PatchInversion((5.6, 4.0), 4, 8)])
    assert finding.suspected == 3
    assert finding.trigger is not None
    changed = finding.trigger(images)
    assert changed.shape == images.shape
    assert (colours(changed).argmax(1) == 3).float().mean() > 0.5
    (on_crops,) = scan(colours, crop(images), 4, [PatchInversion((5.6, 4.0), 4, 8)])
    assert torch.equal(finding.scores, on_crops.scores)
    assert {64, 128} == {*shapes}


def test_other_detectors_get_whole_images(images: Tensor) -> None:
    class Sizes(Detector):
        def score(self, network: object, images: Tensor, num_classes: int) -> tuple[Tensor, None]:
            return torch.arange(num_classes) * images.shape[-1], None

    (finding,) = scan(colours, images, 4, [Sizes()])
    assert finding.scores.tolist() == [0, 128, 256, 384]


def test_the_estimate_of_large_images_is_that_of_crops() -> None:
    used = [DenseInversion(), MaximumMargin()]
    assert scan_passes(10, 64, used) == 4 * scan_passes(10, 128, used)
    assert scan_passes(1000, 64, used) == pytest.approx(4 * scan_passes(1000, 128, used), rel=0.001)
