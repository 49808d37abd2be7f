"""The search of all kinds of trigger inversion: from large perturbations to small ones, evaluated at each size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.errors import InputError
from bdclean.perturbations import (
    ascend,
    ball,
    radius,
)
from bdclean.progress import bar
from bdclean.scanning.base import MANY, Detector, Network
from bdclean.scanning.goals import FlipToClass, Goal
from bdclean.training import batch_size, pieces

EVALUATION_IMAGES = 128
"""Number of images on which a perturbation is evaluated."""
SOURCE_GROUPS = 10
"""Number of groups of source classes, if most of the many classes have at most one image."""
IGNORED_SOURCES = 0.125
"""Share of the source classes with the fewest flips that the score ignores: with few images, some flips always fail."""


class Inversion(Detector):
    """Searches, for each class, for one perturbation that flips images of all other classes to it: a recovered trigger.

    It uses no labels: the network's predictions are flipped. The search starts with large perturbations and shrinks
    them; at each size it measures the share of images that flip, for each source class. A trigger works on all classes;
    a perturbation that turns a circle into an ellipse does not. The score of a class is the share that flips from
    (almost) any other class, the mean over all sizes: the smaller a working perturbation can be, the higher the score.
    In clean networks, too, one class is the easiest; all scores up to its usual score count as equal. A class that can
    no longer reach that score is dropped, and counts 0 for the remaining sizes.

    Searching for a trigger class by class: Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying
    and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019. Shrinking bounds and the score are this
    project's.

    Args:
        sizes: Sizes of the perturbation, from large to small, for images of 32 pixels.
        steps: Number of gradient steps at each size.
        batch_size: Number of images in a step, for each class.

    Raises:
        InputError: If an option is out of range.
    """

    noise = 0.035
    takes_crops = True

    def __init__(self, sizes: Sequence[float], steps: int, batch_size: int) -> None:
        if not sizes:
            raise InputError("detector.sizes", "[]", "must be at least one")
        for size in sizes:
            self.within("sizes", size, 0)
        self.within("steps", steps, 1)
        self.within("batch_size", batch_size, 1)
        self.sizes = sizes
        self.steps = steps
        self.batch_size = batch_size

    @abstractmethod
    def start(self, goal: Goal) -> Tensor:
        """The initial parameters of P perturbations, (P, ...)."""

    @abstractmethod
    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Apply perturbations to images, as `bdclean.perturbations.Change`."""

    def project(self, parameters: Tensor, size: float) -> Tensor:
        """Project parameters to a bounded size, as `bdclean.perturbations.Project`."""
        return ball(parameters, size)

    def bound(self, size: float, side: int) -> float:
        """The bound of the parameters for a size, which is given for 32 pixels, and images of `side` pixels."""
        return radius(size, side)

    def score(
        self, network: Network, images: Tensor, num_classes: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        return self.score_some(network, images, num_classes, torch.arange(num_classes, device=images.device))

    def score_some(
        self, network: Network, images: Tensor, num_classes: int, classes: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        with torch.no_grad():
            predicted = torch.cat([network(part).argmax(1) for part in pieces(images, batch_size(images))])
        together = max(1, batch_size(images) // self.batch_size)
        sources = predicted if num_classes <= MANY else predicted % SOURCE_GROUPS
        parts = bar(list(pieces(classes, together)), type(self).__name__)
        found = [self.search(network, images, predicted, part, sources) for part in parts]
        shares, parameters = (torch.cat(parts) for parts in zip(*found, strict=True))
        best = shares.argmax()
        # On the CPU, because they are sent to other processes.
        return shares, partial(self._apply, parameters[best : best + 1].cpu())

    def _apply(self, parameters: Tensor, images: Tensor) -> Tensor:
        return self.change(images, parameters.to(images.device)).clamp(0, 1)

    def search(
        self, network: Network, images: Tensor, predicted: Tensor, classes: Tensor, sources: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Search for perturbations towards some classes, and score them.

        Args:
            network: The network to flip.
            images: (N, C, H, W) in [0, 1].
            predicted: (N,) the network's predictions for them.
            classes: (P,) the target classes.
            sources: (N,) the source of each image: its predicted class, or a group of classes if there are many.

        Returns:
            (P,) the score of each class; (P, ...) the parameters of the smallest perturbation that flips half of the
            images, or else of the largest.
        """
        evaluated = images[:EVALUATION_IMAGES]
        one_hot = F.one_hot(sources[:EVALUATION_IMAGES]).float()
        # Images of the target class do not count, nor do sources without other images.
        others = (predicted[:EVALUATION_IMAGES] != classes[:, None]).float()
        counts = others @ one_hot
        shares = torch.zeros(len(self.sizes), len(classes), device=images.device)
        active = torch.arange(len(classes), device=images.device)
        goal = FlipToClass(network, images, predicted, classes, self.batch_size)
        smaller = self.shrink(goal)
        found = best = next(smaller)
        for number in range(len(self.sizes)):
            with torch.no_grad():
                flipped = goal.logits(self.change, evaluated, found).argmax(2)
            by_source = ((flipped == classes[active, None]) * others[active]) @ one_hot / counts[active]
            half = (by_source.nanmean(1) >= 0.5).view(-1, *[1] * (found.ndim - 1))
            best = best.index_copy(0, active, torch.where(half, found, best[active]))
            shares[number, active] = by_source.nanquantile(IGNORED_SOURCES, 1).nan_to_num(0)
            # Smaller perturbations flip at most this share, so a class that can no longer reach `score_floor` is
            # dropped, but not after the first size, where the search has not converged.
            left = len(self.sizes) - 1 - number
            kept = (shares.sum(0) + left * shares[number])[active] >= self.score_floor * len(self.sizes)
            kept |= number == 0
            if not left or not kept.any():
                break
            active = active[kept]
            found = smaller.send(kept)
        return shares.mean(0), best

    def shrink(self, goal: Goal) -> Generator[Tensor, Tensor | None, None]:
        """Yield perturbations for a goal, (P, ...), of each size, from large to small.

        Send (P,) bool to keep only some of them for the next size.
        """
        side = goal.images.shape[-1]
        found = self.start(goal)
        goal.restart()
        for size in self.sizes:
            bound = self.bound(size, side)
            gain = partial(goal.gain, self.change)
            found = ascend(gain, self.project(found, bound), bound, self.steps, self.project)
            kept = yield found
            if kept is not None:
                found = found[kept]
                goal.keep(kept)

    def simplify(self, goal: Goal, parameters: Tensor) -> Tensor:
        """Simpler perturbations with the same effect as a recovered one, (K, ...); K is 0 if there is none.

        Args:
            goal: The goal of the search, with P = 1.
            parameters: (1, ...) parameters of the recovered perturbation.
        """
        return parameters[:0]
