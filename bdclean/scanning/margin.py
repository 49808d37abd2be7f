"""Maximum margin: the largest logit margin of each class over all images."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.perturbations import radius, uphill
from bdclean.progress import bar
from bdclean.scanning.base import Detector, Network
from bdclean.training import batch_size, pieces

FEW_STARTS = 2
"""Maximum random images per class, if only some of many classes are searched."""


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """The margin (N,) of one class's logit per image, `classes` (N,), over the largest other logit of (N, C)."""
    columns = classes[:, None]
    return logits.gather(1, columns).squeeze(1) - logits.scatter(1, columns, -torch.inf).amax(1)


class MaximumMargin(Detector):
    """Searches for a class that the network predicts with an abnormally large margin for some image. Needs no data.

    For each class, gradient ascent from random images in [0, 1] maximises the margin of its logit over the largest
    other logit; the score of a class is the logarithm of the largest margin.

    Source: Wang, Xiang, Miller, Kesidis, "MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor
    Pattern Types Using a Maximum Margin Statistic", IEEE S&P 2024. There a gamma distribution is fitted to all classes
    but the one with the largest margin; here Grubbs' test of the logarithms is used.

    Args:
        starts: Number of random images for each class.
        steps: Number of gradient steps.
        step: Euclidean length of the first step, in pixel values, for images of 32 pixels; steps shrink linearly to 0.

    Raises:
        InputError: If an option is out of range.
    """

    uses_images = False
    passes = 1400
    takes_crops = True
    # In a clean network, one class may have a margin four times as large as the others.
    noise = 0.5

    def __init__(self, starts: int = 8, steps: int = 60, step: float = 2.0) -> None:
        self.within("starts", starts, 1)
        self.within("steps", steps, 1)
        self.within("step", step, 0)
        self.starts = starts
        self.steps = steps
        self.step = step

    def score(self, network: Network, images: Tensor, num_classes: int) -> tuple[Tensor, None]:
        return self.score_some(network, images, num_classes, torch.arange(num_classes, device=images.device))

    def score_some(self, network: Network, images: Tensor, num_classes: int, classes: Tensor) -> tuple[Tensor, None]:
        number = self.starts if len(classes) == num_classes else min(self.starts, FEW_STARTS)
        starts = classes.repeat_interleave(number)
        parts = bar(list(pieces(starts, batch_size(images))), type(self).__name__)
        largest = torch.cat([self.climb(network, images, part) for part in parts])
        # Without a positive margin, a class is the least suspicious.
        return largest.view(len(classes), number).amax(1).clamp(min=1e-3).log(), None

    def climb(self, network: Network, images: Tensor, classes: Tensor) -> Tensor:
        """The margins (N,) after gradient ascent for classes (N,)."""
        found = torch.rand(len(classes), *images.shape[1:]).to(images.device)
        length = radius(self.step, images.shape[-1])
        for number in range(self.steps):
            found.requires_grad_()
            step = uphill(margins(network(found), classes).sum(), found, length * (1 - number / self.steps))
            found = (found.detach() + step).clamp(0, 1)
        with torch.no_grad():
            return margins(network(found), classes)
