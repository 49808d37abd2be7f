"""What `ScanDistill` looks for and lets the student unlearn: universal changes of images, by kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdclean.scanning import (
    Apart,
    DenseInversion,
    Finding,
    Inversion,
    Network,
    PatchInversion,
    SparseInversion,
    Towards,
    WarpInversion,
    stands_out,
)
from bdclean.universal import Change

AT_ONCE = 32
"""Images that a search looks at in a step."""
HUNTERS = (
    DenseInversion((2.8, 2.0, 1.4, 1.0, 0.7), 4, AT_ONCE),
    SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, AT_ONCE),
    PatchInversion((7.0, 5.6, 4.0, 2.8, 2.0), 4, AT_ONCE),
    WarpInversion((2.0, 1.5, 1.0, 0.7, 0.5), 4, AT_ONCE),
)
"""Searches for triggers of each kind, by sizes that triggers have."""


@dataclass(frozen=True)
class Changes:
    """Universal changes of one kind.

    Attributes:
        change: How they change images.
        parameters: (K, ...) of each.
        sources: (K,) the class whose images each is for; None if each is for all images.
    """

    change: Change
    parameters: Tensor
    sources: Tensor | None = None

    def put_on(self, images: Tensor, own: Tensor) -> Tensor:
        """Each of some images (N, C, H, W) with a random one of the changes that are for its class, (N,)."""
        number = len(self.parameters)
        if self.sources is None:
            chosen = torch.randint(number, (len(images),), device=images.device)
            return self.change(images, self.parameters[chosen])
        fits = self.sources == own[:, None]
        some = fits.any(1)
        # Where none fits any is drawn, and not put on.
        chosen = torch.multinomial(torch.where(some[:, None], fits, True).float(), 1)[:, 0]
        return torch.where(some[:, None, None, None], self.change(images, self.parameters[chosen]), images)

    def after(self, earlier: Changes) -> Changes:
        """These, and of earlier ones those for classes that these are not for."""
        if self.sources is None or earlier.sources is None:
            return self
        others = ~torch.isin(earlier.sources, self.sources)
        return Changes(
            self.change,
            torch.cat([self.parameters, earlier.parameters[others]]),
            torch.cat([self.sources, earlier.sources[others]]),
        )

    def extended(self, parameters: Tensor, times: int) -> Changes:
        """These, and others for all images several times over."""
        return Changes(self.change, torch.cat([self.parameters, *[parameters] * times]), self.sources)


class Aim(ABC):
    """Triggers of one kind that are looked for again and again while a student unlearns them.

    Attributes:
        hunter: The search.
    """

    hunter: Inversion

    @abstractmethod
    def search(self, network: Network, images: Tensor, own: Tensor) -> Changes:
        """Look for them in a network.

        Args:
            network: What is searched.
            images: (N, C, H, W) in [0, 1], in random order.
            own: (N,) the class that the suspect gives each.
        """

    @abstractmethod
    def moved(self, predicted: Tensor, own: Tensor, sources: Tensor | None) -> Tensor:
        """(K,) which share of the images each of K changes moves as a trigger does; nan where no image counts.

        Args:
            predicted: (K, N) the classes of the images under each change.
            own: (N,) the class that the suspect gives each image.
            sources: (K,) as in `Changes`.
        """

    def simplify(self, network: Network, images: Tensor, own: Tensor, found: Changes) -> Tensor:
        """Parameters (1, ...) of something plainer that does what the last of some changes does, or (0, ...)."""
        return found.parameters[:0]


@dataclass(frozen=True)
class AllToOne(Aim):
    """Triggers that take the images of all classes to one.

    Attributes:
        hunter: The search.
        target: The class.
    """

    hunter: Inversion
    target: int

    def search(self, network: Network, images: Tensor, own: Tensor) -> Changes:
        goal = Towards(network, images, own, own.new_tensor([self.target]), self.hunter.batch_size)
        return Changes(self.hunter.change, torch.cat([*self.hunter.shrink(goal)]))

    def moved(self, predicted: Tensor, own: Tensor, sources: Tensor | None) -> Tensor:
        others = own != self.target
        return ((predicted == self.target) & others).sum(1) / others.sum()

    def simplify(self, network: Network, images: Tensor, own: Tensor, found: Changes) -> Tensor:
        return self.hunter.simplify(network, images, own, self.target, found.parameters[-1:])


@dataclass(frozen=True)
class BySource(Aim):
    """Triggers that flip images of single classes, in a network and not in a reference.

    Attributes:
        hunter: The search.
        members: Each of the classes, and images of it, (n, C, H, W), one or more.
        reference: The reference.
        at_once: How many of the classes, drawn at random, one search looks at.
    """

    hunter: Inversion
    members: Mapping[int, Tensor]
    reference: Network
    at_once: int = 3

    def search(self, network: Network, images: Tensor, own: Tensor) -> Changes:
        drawn = [[*self.members][place] for place in torch.randperm(len(self.members))[: self.at_once].tolist()]
        lengths = [len(self.members[source]) for source in drawn]
        places = [torch.randperm(length, device=own.device) for length in lengths]
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        goal = Apart(
            network,
            self.reference,
            torch.cat([self.members[source] for source in drawn]),
            [start + order for start, order in zip(starts, places, strict=True)],
            own.new_tensor(drawn),
            max(1, self.hunter.batch_size // 2),
        )
        found = [*self.hunter.shrink(goal)]
        return Changes(self.hunter.change, torch.cat(found), own.new_tensor(drawn).repeat(len(found)))

    def moved(self, predicted: Tensor, own: Tensor, sources: Tensor | None) -> Tensor:
        assert sources is not None
        theirs = own == sources[:, None]
        return ((predicted != own) & theirs).sum(1) / theirs.sum(1)


def all_to_one(findings: Sequence[Finding]) -> list[Aim]:
    """What to look for after a scan, for the classes that stand out; nothing if none does."""
    outstanding = [one for one in findings if stands_out(one, len(findings))]
    known = {type(hunter).__name__: hunter for hunter in HUNTERS}
    found: list[Aim] = []
    for target in dict.fromkeys(one.suspected for one in outstanding):
        finders = [one for one in outstanding if one.suspected == target and one.detector in known]
        # For each kind of change, what is surest of it.
        hunters: dict[object, Inversion] = {}
        for one in sorted(finders, key=lambda one: one.p_value):
            hunter = known[one.detector]
            hunters.setdefault(type(hunter).change, hunter)
        # What found no trigger says nothing of its kind.
        found += [AllToOne(hunter, target) for hunter in hunters.values() or HUNTERS]
    return found
