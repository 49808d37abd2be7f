"""A fast screening of many classes, to select the few that are worth a search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from bdclean.perturbations import Change
from bdclean.progress import bar
from bdclean.scanning.base import Network, rounds
from bdclean.scanning.goals import QUICK_IMAGES, Goal, under_each
from bdclean.scanning.inversion import DenseInversion, Inversion, PatchInversion
from bdclean.training import batch_size, pieces

GROUPS = 8
"""Number of random groups of classes; each search flips images to the easiest class of its group."""
SHARPNESS = 4.0
"""Sharpness of the soft maximum over the classes of a group; infinity would give the maximum."""
SIZES = 4
"""Number of sizes that are tried for each kind of perturbation, from the largest."""
EVALUATION_IMAGES = 64
"""Number of images on which the classes are compared."""
SCREENING_PASSES = 23_000
"""Approximate cost of a screening, in forward passes of one image."""
SCREENS = (DenseInversion, PatchInversion)
"""Kinds of perturbations of the screening: additive ones, and patches."""


class FlipToGroup(Goal):
    """Perturbations that flip images to one class, the easiest of a group.

    For each group they maximise a soft maximum, over its classes, of the mean log probability of a class on images of
    other classes.

    Args:
        network: The network to flip.
        images: (N, C, H, W) in [0, 1].
        predicted: (N,) the network's predictions for them.
        members: (P, classes) bool, the groups.
        batch_size: Images per step, for each group.
    """

    def __init__(self, network: Network, images: Tensor, predicted: Tensor, members: Tensor, batch_size: int) -> None:
        self.predicted = predicted
        self.members = members
        super().__init__(network, images, torch.arange(len(members), device=images.device), batch_size)

    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        images, predicted = next(self._batches)
        return self._soft_maximum(self._means(change, images, predicted, parameters)).sum()

    def quick_gain(self, change: Change, parameters: Tensor) -> Tensor:
        return self._soft_maximum(
            self._means(change, self.images[:QUICK_IMAGES], self.predicted[:QUICK_IMAGES], parameters)
        )

    def success_probabilities(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        raise NotImplementedError  # the target class is not known yet

    def keep(self, kept: Tensor) -> None:
        self.members, self.classes = self.members[kept], self.classes[kept]

    def restart(self) -> None:
        self._batches = rounds(self.images, self.predicted, self.batch_size)

    @torch.no_grad()
    def shares(self, change: Change, parameters: Tensor) -> Tensor:
        """(classes,) mean probability of each class on images of other classes under its group's perturbation."""
        images, predicted = self.images[:EVALUATION_IMAGES], self.predicted[:EVALUATION_IMAGES]
        means = self._means(change, images, predicted, parameters, logarithms=False)
        return means.masked_fill(~self.members, 0).amax(0)

    def _soft_maximum(self, means: Tensor) -> Tensor:
        """The soft maximum (P,) of (P, classes) over the members of each group."""
        return (SHARPNESS * means.masked_fill(~self.members, -torch.inf)).logsumexp(1) / SHARPNESS

    def _means(
        self, change: Change, images: Tensor, predicted: Tensor, parameters: Tensor, logarithms: bool = True
    ) -> Tensor:
        """(P, classes) mean log probability, or probability, of each class on images of other classes."""
        parts = [
            self.network(under_each(change, part, parameters)).view(len(parameters), len(part), -1)
            for part in pieces(images, self.batch_size)
        ]
        logits = torch.cat(parts, 1)
        values = logits.log_softmax(2) if logarithms else logits.softmax(2)
        others = (predicted[:, None] != torch.arange(values.shape[2], device=predicted.device)).float()
        return (values * others).sum(1) / others.sum(0).clamp(min=1)


def screen(
    network: Network,
    images: Tensor,
    predicted: Tensor,
    num_classes: int,
    inversions: Sequence[Inversion] | None = None,
) -> Tensor:
    """Measure how easily images flip to each class, (classes,): probabilities, the mean over sizes of perturbations.

    Each search flips images to the easiest class of its group; the other classes of the group get low probabilities.

    Args:
        network: The network to scan.
        images: (N, C, H, W) in [0, 1].
        predicted: (N,) the network's predictions for them.
        num_classes: Number of classes.
        inversions: The searches; by default one of each class in `SCREENS`.
    """
    found = torch.zeros(num_classes, device=images.device)
    for inversion in bar([kind() for kind in SCREENS] if inversions is None else inversions, "screen"):
        group = torch.randperm(num_classes).to(images.device) % GROUPS
        members = group == torch.arange(GROUPS, device=images.device)[:, None]
        # As many groups at the same time as a batch of images has room for.
        for some in pieces(members, max(1, batch_size(images) // inversion.batch_size)):
            goal = FlipToGroup(network, images, predicted, some, inversion.batch_size)
            sizes = islice(inversion.shrink(goal), SIZES)
            shares = torch.stack([goal.shares(inversion.change, parameters) for parameters in sizes])
            found = found.maximum(shares.mean(0))
    return found
