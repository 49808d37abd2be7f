"""The search that all kinds of trigger inversion share: from large changes to small ones, judged at each size."""

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
from bdclean.scanning.goals import Goal, Towards
from bdclean.training import batch_size, pieces

JUDGED = 128
"""Images by which a change is judged."""
SOURCES = 10
"""Of many classes most have an image or none among those: their images are put together into so many groups."""
BEHIND = 0.125
"""One class in eight may stay behind: with few images of each, some always do."""


class Inversion(Detector):
    """For each class, searches for one change that flips the images of all other classes to it: a recovered trigger.

    It uses no labels: the network's predictions are flipped. The search begins with large changes and shrinks them; at
    each size it measures the share of images that flip, for each class that they come from. A trigger works on all
    classes; a change that turns a circle into an ellipse does not. The score of a class is the share that flips from
    (almost) any other class, a mean over all sizes: the smaller a change can be that still works, the higher the
    score. In clean networks, too, one class is the easiest; scores up to what it usually reaches count as the same. A
    class that can no longer reach that score is dropped, and counts 0 for the remaining sizes.

    Searching for a trigger class by class: Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying
    and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019. Shrinking bounds and the score are this
    project's.

    Args:
        sizes: From large to small, for images of 32 pixels.
        steps: Number of gradient steps at each size.
        batch_size: Number of images in a step, for each class.

    Raises:
        InputError: If an option is out of range.
    """

    noise = 0.035

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
        """Parameters of changes to begin with, (P, ...)."""

    @abstractmethod
    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        """As `bdclean.perturbations.Change`."""

    def project(self, parameters: Tensor, size: float) -> Tensor:
        """As `bdclean.perturbations.Project`."""
        return ball(parameters, size)

    def bound(self, size: float, side: int) -> float:
        """What a size for images of 32 pixels is in parameters, for images of so many."""
        return radius(size, side)

    def score(
        self, network: Network, images: Tensor, num_classes: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        return self.score_some(network, images, num_classes, torch.arange(num_classes, device=images.device))

    def score_some(
        self, network: Network, images: Tensor, num_classes: int, classes: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        with torch.no_grad():
            own = torch.cat([network(part).argmax(1) for part in pieces(images, batch_size(images))])
        together = max(1, batch_size(images) // self.batch_size)
        groups = own if num_classes <= MANY else own % SOURCES
        parts = bar(list(pieces(classes, together)), type(self).__name__)
        found = [self.search(network, images, own, part, groups) for part in parts]
        shares, parameters = (torch.cat(parts) for parts in zip(*found, strict=True))
        best = shares.argmax()
        # From one process to others it goes by way of the CPU.
        return shares, partial(self._put_on, parameters[best : best + 1].cpu())

    def _put_on(self, parameters: Tensor, images: Tensor) -> Tensor:
        return self.change(images, parameters.to(images.device)).clamp(0, 1)

    def search(
        self, network: Network, images: Tensor, own: Tensor, classes: Tensor, groups: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Changes towards some classes, judged.

        Args:
            network: As in `Towards`.
            images: As in `Towards`.
            own: As in `Towards`.
            classes: As in `Towards`.
            groups: (N,) the source of each image: a class, or several together where there are many.

        Returns:
            (P,) the score of each; (P, ...) parameters of the smallest change that takes half of the images there, or
            where there is none of the largest.
        """
        judged = images[:JUDGED]
        sources = F.one_hot(groups[:JUDGED]).float()
        # Its own images, and sources without others, say nothing.
        others = (own[:JUDGED] != classes[:, None]).float()
        counts = others @ sources
        shares = torch.zeros(len(self.sizes), len(classes), device=images.device)
        going = torch.arange(len(classes), device=images.device)
        goal = Towards(network, images, own, classes, self.batch_size)
        smaller = self.shrink(goal)
        found = best = next(smaller)
        for number in range(len(self.sizes)):
            with torch.no_grad():
                gone = goal.logits(self.change, judged, found).argmax(2)
            reached = ((gone == classes[going, None]) * others[going]) @ sources / counts[going]
            half = (reached.nanmean(1) >= 0.5).view(-1, *[1] * (found.ndim - 1))
            best = best.index_copy(0, going, torch.where(half, found, best[going]))
            shares[number, going] = reached.nanquantile(BEHIND, 1).nan_to_num(0)
            # A smaller change does no more than this: who cannot come as far as is common need not go on. But the first
            # has only begun to be what it can be.
            left = len(self.sizes) - 1 - number
            stays = (shares.sum(0) + left * shares[number])[going] >= self.least * len(self.sizes)
            stays |= number == 0
            if not left or not stays.any():
                break
            going = going[stays]
            found = smaller.send(stays)
        return shares.mean(0), best

    def shrink(self, goal: Goal) -> Generator[Tensor, Tensor | None, None]:
        """Changes towards a goal, (P, ...), of each size, from large to small.

        It can be sent which of them go on to the next size, (P,) of bool.
        """
        side = goal.images.shape[-1]
        found = self.start(goal)
        goal.restart()
        for size in self.sizes:
            bound = self.bound(size, side)
            gain = partial(goal.gain, self.change)
            found = ascend(gain, self.project(found, bound), bound, self.steps, self.project)
            going = yield found
            if going is not None:
                found = found[going]
                goal.narrow(going)

    def simplify(self, goal: Goal, parameters: Tensor) -> Tensor:
        """Something plainer than a change that was found, (1, ...), and does what it does; (0, ...) if there is none.

        Args:
            goal: What the change was found for, and nothing else.
            parameters: (1, ...) of the change.
        """
        return parameters[:0]
