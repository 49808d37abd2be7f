"""Which few of a thousand classes to search: a cheap look at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from bdclean.perturbations import Change
from bdclean.progress import bar
from bdclean.scanning.base import Network, rounds
from bdclean.scanning.goals import GLIMPSED, Goal, under_each
from bdclean.scanning.inversion import DenseInversion, Inversion, PatchInversion
from bdclean.training import pieces

GROUPS = 8
"""Into so many the classes are divided at random; each search goes to the easiest class of its group."""
SHARPNESS = 4.0
"""How much the easiest class of a group counts beyond the others: the maximum of all at infinity."""
SIZES = 4
"""Of each kind of change, the largest that are tried. All take images somewhere; the smallest count as much."""
JUDGED = 64
"""Images by which the classes are compared."""
SCREENS = (DenseInversion, PatchInversion)
"""Kinds of changes that the classes are screened by: what is blended in, and what is put on."""


class Anywhere(Goal):
    """Changes that take images to one class, whichever of a group is the easiest.

    For each group they maximise a soft maximum, over its classes, of the mean log probability of a class on images of
    other classes.

    Args:
        network: What is searched.
        images: (N, C, H, W) in [0, 1].
        own: (N,) the class that the network gives each.
        members: (P, classes) of bool, the groups.
        batch_size: Images a step, for each group.
    """

    def __init__(self, network: Network, images: Tensor, own: Tensor, members: Tensor, batch_size: int) -> None:
        self.own = own
        self.members = members
        super().__init__(network, images, torch.arange(len(members), device=images.device), batch_size)

    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        some, theirs = next(self._batches)
        return self._soft_maximum(self._means(change, some, theirs, parameters)).sum()

    def glimpse(self, change: Change, parameters: Tensor) -> Tensor:
        return self._soft_maximum(self._means(change, self.images[:GLIMPSED], self.own[:GLIMPSED], parameters))

    def likely(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        raise NotImplementedError  # the class is not known yet

    def narrow(self, going: Tensor) -> None:
        self.members, self.classes = self.members[going], self.classes[going]

    def restart(self) -> None:
        self._batches = rounds(self.images, self.own, self.batch_size)

    @torch.no_grad()
    def shares(self, change: Change, parameters: Tensor) -> Tensor:
        """(classes,) the probability that changed images of other classes get, of each class by its group's change."""
        means = self._means(change, self.images[:JUDGED], self.own[:JUDGED], parameters, logarithms=False)
        return means.masked_fill(~self.members, 0).amax(0)

    def _soft_maximum(self, means: Tensor) -> Tensor:
        """(P,) of (P, classes), over the members of each group."""
        return (SHARPNESS * means.masked_fill(~self.members, -torch.inf)).logsumexp(1) / SHARPNESS

    def _means(
        self, change: Change, images: Tensor, own: Tensor, parameters: Tensor, logarithms: bool = True
    ) -> Tensor:
        """(P, classes) the mean log probability, or probability, of each class on images of others."""
        parts = [
            self.network(under_each(change, part, parameters)).view(len(parameters), len(part), -1)
            for part in pieces(images, self.batch_size)
        ]
        logits = torch.cat(parts, 1)
        values = logits.log_softmax(2) if logarithms else logits.softmax(2)
        others = (own[:, None] != torch.arange(values.shape[2], device=own.device)).float()
        return (values * others).sum(1) / others.sum(0).clamp(min=1)


def screen(
    network: Network,
    images: Tensor,
    own: Tensor,
    num_classes: int,
    inversions: Sequence[Inversion] | None = None,
) -> Tensor:
    """How easily images are taken to each class, (classes,): probabilities, a mean over sizes of changes.

    Each search goes to whichever class of its group is the easiest; others of the group get what is left over.

    Args:
        network: What is scanned.
        images: (N, C, H, W) in [0, 1].
        own: (N,) the class that the network gives each.
        num_classes: How many classes there are.
        inversions: The searches; by default one of each of `SCREENS`.
    """
    found = torch.zeros(num_classes, device=images.device)
    for inversion in bar([kind() for kind in SCREENS] if inversions is None else inversions, "screen"):
        group = torch.randperm(num_classes).to(images.device) % GROUPS
        members = group == torch.arange(GROUPS, device=images.device)[:, None]
        goal = Anywhere(network, images, own, members, inversion.batch_size)
        sizes = islice(inversion.shrink(goal), SIZES)
        shares = torch.stack([goal.shares(inversion.change, parameters) for parameters in sizes])
        found = found.maximum(shares.mean(0))
    return found
