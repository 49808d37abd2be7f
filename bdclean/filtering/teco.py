"""TeCo: the deviation of the severities at which corruptions flip the prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_contrast, adjust_saturation, gaussian_blur

from bdclean.filtering.base import Context, ImageScore, PredictedBatch

SEVERITIES = 5
"""Number of severities of each corruption."""


def noise(images: Tensor, severity: int) -> Tensor:
    """Add the same normal noise to all images, so that no score depends on the batch."""
    pattern = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    return (images + 0.04 * severity * pattern).clamp(0, 1)


def brighten(images: Tensor, severity: int) -> Tensor:
    """Add a constant."""
    return (images + 0.1 * severity).clamp(max=1)


def darken(images: Tensor, severity: int) -> Tensor:
    """Subtract a constant."""
    return (images - 0.1 * severity).clamp(min=0)


def flatten(images: Tensor, severity: int) -> Tensor:
    """Reduce the contrast."""
    return adjust_contrast(images, 1 - 0.17 * severity)


def desaturate(images: Tensor, severity: int) -> Tensor:
    """Reduce the saturation."""
    return adjust_saturation(images, 1 - 0.2 * severity)


def blur(images: Tensor, severity: int) -> Tensor:
    """Blur by a normal kernel, whose width is in proportion to the side."""
    sigma = 0.3 * severity * images.shape[-1] / 32
    # Reflection at the border needs a kernel smaller than twice the image.
    reach = min(max(1, round(3 * sigma)), images.shape[-1] - 1)
    return gaussian_blur(images, [2 * reach + 1, 2 * reach + 1], [sigma, sigma])


def pixelate(images: Tensor, severity: int) -> Tensor:
    """Shrink and enlarge again."""
    side = max(1, round(images.shape[-1] * (1 - 0.14 * severity)))
    return F.interpolate(F.interpolate(images, side, mode="area"), images.shape[-1], mode="nearest")


CORRUPTIONS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    noise,
    brighten,
    darken,
    flatten,
    desaturate,
    blur,
    pixelate,
)
"""Change images (N, 3, H, W) in [0, 1] by a severity from 1 to `SEVERITIES`."""


class TeCo(ImageScore):
    """How much the severities at which corruptions change the suspect's prediction differ between corruptions.

    For each corruption, the severity is the lowest of 1 to 5 at which the suspect predicts another class, and 6 if it
    never does. The score is the standard deviation of these severities over the corruptions. A trigger survives some
    corruptions and not others, where clean images lose their class at similar severities.

    Source: Liu et al., "Detecting Backdoors During the Inference Stage Based on Corruption Robustness Consistency",
    CVPR 2023 (arXiv:2303.18191). The paper uses the 15 corruptions of ImageNet-C; here there are 7 simple ones (noise,
    brighter, darker, less contrast, less colour, blur, pixels), so that no further package is needed.
    """

    def score(self, context: Context, batch: PredictedBatch) -> Tensor:
        severities = []
        for corrupt in CORRUPTIONS:
            # From the highest, so that the lowest severity that changes the class remains.
            lowest = torch.full((len(batch.images),), SEVERITIES + 1.0, device=batch.images.device)
            for severity in range(SEVERITIES, 0, -1):
                changed = context.suspect(corrupt(batch.images, severity)).argmax(1) != batch.predicted
                lowest = torch.where(changed, float(severity), lowest)
            severities.append(lowest)
        return torch.stack(severities).std(0, correction=0)
