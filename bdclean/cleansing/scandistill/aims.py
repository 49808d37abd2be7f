"""What `ScanDistill` looks for and lets the student unlearn: universal changes of images, by kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdclean.perturbations import Change
from bdclean.scanning import (
    DenseInversion,
    Finding,
    Inversion,
    Network,
    PatchInversion,
    SparseInversion,
    WarpInversion,
    stands_out,
)
from bdclean.scanning.goals import Apart, Goal, Towards

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

    def with_(self, others: Changes, times: int) -> Changes:
        """These, and others of the same kind several times over."""
        sources = None
        if self.sources is not None and others.sources is not None:
            sources = torch.cat([self.sources, *[others.sources] * times])
        return Changes(self.change, torch.cat([self.parameters, *[others.parameters] * times]), sources)


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

    @abstractmethod
    def simplify(self, network: Network, images: Tensor, own: Tensor, found: Changes, known: Changes | None) -> Changes:
        """Plainer changes that do what the smallest of some that were found do, as far as there are such.

        Args:
            network: What was searched.
            images: As in `search`.
            own: As in `search`.
            found: What was found.
            known: What earlier calls returned, to which this one adds; None in the first.
        """


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
        return Changes(self.hunter.change, torch.cat([*self.hunter.shrink(self._goal(network, images, own))]))

    def moved(self, predicted: Tensor, own: Tensor, sources: Tensor | None) -> Tensor:
        others = own != self.target
        return ((predicted == self.target) & others).sum(1) / others.sum()

    def simplify(self, network: Network, images: Tensor, own: Tensor, found: Changes, known: Changes | None) -> Changes:
        if known is not None:
            return known
        goal = self._goal(network, images, own)
        return Changes(self.hunter.change, self.hunter.simplify(goal, found.parameters[-1:]))

    def _goal(self, network: Network, images: Tensor, own: Tensor) -> Goal:
        return Towards(network, images, own, own.new_tensor([self.target]), self.hunter.batch_size)


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
        classes = [*self.members]
        drawn = [classes[place] for place in torch.randperm(len(classes))[: self.at_once].tolist()]
        found = [*self.hunter.shrink(self._goal(network, drawn, own))]
        return Changes(self.hunter.change, torch.cat(found), own.new_tensor(drawn).repeat(len(found)))

    def simplify(self, network: Network, images: Tensor, own: Tensor, found: Changes, known: Changes | None) -> Changes:
        assert found.sources is not None
        plain = known or Changes(found.change, found.parameters[:0], found.sources[:0])
        assert plain.sources is not None
        seen = plain.sources.tolist()
        # The smallest changes come last.
        last = {source: place for place, source in enumerate(found.sources.tolist()) if source not in seen}
        for source, place in last.items():
            goal = self._goal(network, [source], own)
            simple = self.hunter.simplify(goal, found.parameters[place : place + 1])
            plain = plain.with_(Changes(found.change, simple, own.new_full((len(simple),), source)), 1)
        return plain

    def _goal(self, network: Network, classes: list[int], own: Tensor) -> Goal:
        lengths = [len(self.members[number]) for number in classes]
        starts = [sum(lengths[:place]) for place in range(len(lengths))]
        return Apart(
            network,
            self.reference,
            torch.cat([self.members[number] for number in classes]),
            [start + torch.randperm(length, device=own.device) for start, length in zip(starts, lengths, strict=True)],
            own.new_tensor(classes),
            self.hunter.batch_size,
        )

    def moved(self, predicted: Tensor, own: Tensor, sources: Tensor | None) -> Tensor:
        assert sources is not None
        theirs = own == sources[:, None]
        return ((predicted != own) & theirs).sum(1) / theirs.sum(1)


def all_to_one(findings: Sequence[Finding]) -> list[Aim]:
    """Triggers to unlearn after a scan: for each class that stands out, of each kind of change that points at it.

    A kind points at a class if that class is its most suspicious one, however surely: a network may keep the part of a
    trigger that only another kind of change imitates.

    Args:
        findings: Of all detectors of a scan.

    Returns:
        The aims; none if no class stands out.
    """
    outstanding = [one for one in findings if stands_out(one, len(findings))]
    known = {type(hunter).__name__: hunter for hunter in HUNTERS}
    found: list[Aim] = []
    for target in dict.fromkeys(one.suspected for one in outstanding):
        # A detector that does not search says nothing of the kind.
        sure = any(one.suspected == target and one.detector in known for one in outstanding)
        pointing = [one for one in findings if one.suspected == target and one.detector in known]
        hunters: dict[object, Inversion] = {}
        for one in sorted(pointing, key=lambda one: one.p_value) if sure else ():
            # Two searches for the same kind of change: the surer one.
            hunters.setdefault(type(known[one.detector]).change, known[one.detector])
        found += [AllToOne(hunter, target) for hunter in hunters.values() or HUNTERS]
    return found
