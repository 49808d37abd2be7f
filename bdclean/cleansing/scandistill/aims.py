"""Triggers that `ScanDistill` searches for and the student unlearns: universal perturbations of several kinds."""

from __future__ import annotations

import math
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
    is_significant,
)
from bdclean.scanning.goals import FlipOneNetwork, FlipToClass, Goal

SEARCH_BATCH = 32
"""Images in a step of a search."""
INVERSIONS = (
    DenseInversion((2.8, 2.0, 1.4, 1.0, 0.7), 4, SEARCH_BATCH),
    SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, SEARCH_BATCH),
    PatchInversion((7.0, 5.6, 4.0, 2.8, 2.0), 4, SEARCH_BATCH),
    WarpInversion((2.0, 1.5, 1.0, 0.7, 0.5), 4, SEARCH_BATCH),
)
"""A search for each kind of trigger, with the sizes that triggers have."""
MIN_RELATIVE_SCORE = 2 / 3
"""Minimum score of another search for a class, relative to the best search. With blended noise the score for all pixels
is .68 of the score for a mask; with patches it was .59 and .64, and unlearning it cost accuracy without a benefit."""


@dataclass(frozen=True)
class Changes:
    """Universal perturbations of one kind.

    Attributes:
        change: Applies parameters to images.
        parameters: (K, ...) one for each perturbation.
        sources: (K,) the class to whose images each applies; None if all apply to all images.
    """

    change: Change
    parameters: Tensor
    sources: Tensor | None = None

    def perturb(self, images: Tensor, labels: Tensor) -> Tensor:
        """Apply to each image (N, C, H, W) a random perturbation for its predicted class, labels (N,)."""
        number = len(self.parameters)
        if self.sources is None:
            chosen = torch.randint(number, (len(images),), device=images.device)
            return self.change(images, self.parameters[chosen])
        fits = self.sources == labels[:, None]
        some = fits.any(1)
        # Images of other classes draw any perturbation, which is not applied.
        chosen = torch.multinomial(torch.where(some[:, None], fits, True).float(), 1)[:, 0]
        return torch.where(some[:, None, None, None], self.change(images, self.parameters[chosen]), images)

    def after(self, earlier: Changes) -> Changes:
        """These perturbations, and earlier ones for the classes that these do not cover."""
        if self.sources is None or earlier.sources is None:
            return self
        others = ~torch.isin(earlier.sources, self.sources)
        return Changes(
            self.change,
            torch.cat([self.parameters, earlier.parameters[others]]),
            torch.cat([self.sources, earlier.sources[others]]),
        )

    def with_(self, others: Changes, times: int) -> Changes:
        """These perturbations, and others of the same kind, repeated."""
        sources = None
        if self.sources is not None and others.sources is not None:
            sources = torch.cat([self.sources, *[others.sources] * times])
        return Changes(self.change, torch.cat([self.parameters, *[others.parameters] * times]), sources)


class Aim(ABC):
    """Triggers of one kind, searched for repeatedly while a student unlearns them.

    Attributes:
        inversion: The search.
    """

    inversion: Inversion

    @abstractmethod
    def search(self, network: Network, images: Tensor, labels: Tensor) -> Changes:
        """Search a network for triggers.

        Args:
            network: Maps images to logits.
            images: (N, C, H, W) in [0, 1], in random order.
            labels: (N,) the suspect's predictions.
        """

    @abstractmethod
    def moved(self, predicted: Tensor, labels: Tensor, sources: Tensor | None) -> Tensor:
        """(K,) the ASR of each of K perturbations, as a share; NaN where no image counts.

        Args:
            predicted: (K, N) the predictions under each perturbation.
            labels: (N,) the suspect's predictions on clean images.
            sources: (K,) as in `Changes`.
        """

    @abstractmethod
    def simplify(
        self, network: Network, images: Tensor, labels: Tensor, found: Changes, known: Changes | None
    ) -> Changes:
        """Search for simpler perturbations that flip as many images; the result has no parameters if there are none.

        Args:
            network: The network that was searched.
            images: (N, C, H, W) in [0, 1], in random order.
            labels: (N,) the suspect's predictions.
            found: The perturbations found.
            known: The result of the previous call, which is extended; None in the first call.
        """


@dataclass(frozen=True)
class AllToOne(Aim):
    """Triggers that flip images of all classes to one.

    Attributes:
        inversion: The search.
        target: The class.
    """

    inversion: Inversion
    target: int

    def search(self, network: Network, images: Tensor, labels: Tensor) -> Changes:
        return Changes(self.inversion.change, torch.cat([*self.inversion.shrink(self._goal(network, images, labels))]))

    def moved(self, predicted: Tensor, labels: Tensor, sources: Tensor | None) -> Tensor:
        others = labels != self.target
        return ((predicted == self.target) & others).sum(1) / others.sum()

    def simplify(
        self, network: Network, images: Tensor, labels: Tensor, found: Changes, known: Changes | None
    ) -> Changes:
        if known is not None:
            return known
        goal = self._goal(network, images, labels)
        return Changes(self.inversion.change, self.inversion.simplify(goal, found.parameters[-1:]))

    def _goal(self, network: Network, images: Tensor, labels: Tensor) -> Goal:
        return FlipToClass(network, images, labels, labels.new_tensor([self.target]), self.inversion.batch_size)


@dataclass(frozen=True)
class BySource(Aim):
    """Triggers that flip images of single source classes in a network and not in a reference.

    Attributes:
        inversion: The search.
        members: For each source class, its images (n, C, H, W), at least one.
        reference: The reference.
        at_once: Number of classes, drawn at random, in one search.
    """

    inversion: Inversion
    members: Mapping[int, Tensor]
    reference: Network
    at_once: int = 3

    def search(self, network: Network, images: Tensor, labels: Tensor) -> Changes:
        classes = [*self.members]
        drawn = [classes[place] for place in torch.randperm(len(classes))[: self.at_once].tolist()]
        found = [*self.inversion.shrink(self._goal(network, drawn, labels))]
        return Changes(self.inversion.change, torch.cat(found), labels.new_tensor(drawn).repeat(len(found)))

    def simplify(
        self, network: Network, images: Tensor, labels: Tensor, found: Changes, known: Changes | None
    ) -> Changes:
        assert found.sources is not None
        plain = known or Changes(found.change, found.parameters[:0], found.sources[:0])
        assert plain.sources is not None
        seen = plain.sources.tolist()
        # The smallest perturbations come last.
        last = {source: place for place, source in enumerate(found.sources.tolist()) if source not in seen}
        for source, place in last.items():
            goal = self._goal(network, [source], labels)
            simple = self.inversion.simplify(goal, found.parameters[place : place + 1])
            plain = plain.with_(Changes(found.change, simple, labels.new_full((len(simple),), source)), 1)
        return plain

    def _goal(self, network: Network, classes: list[int], labels: Tensor) -> Goal:
        lengths = [len(self.members[number]) for number in classes]
        starts = [sum(lengths[:place]) for place in range(len(lengths))]
        return FlipOneNetwork(
            network,
            self.reference,
            torch.cat([self.members[number] for number in classes]),
            [
                start + torch.randperm(length, device=labels.device)
                for start, length in zip(starts, lengths, strict=True)
            ],
            labels.new_tensor(classes),
            self.inversion.batch_size,
        )

    def moved(self, predicted: Tensor, labels: Tensor, sources: Tensor | None) -> Tensor:
        assert sources is not None
        counted = labels == sources[:, None]
        return ((predicted != labels) & counted).sum(1) / counted.sum(1)


def all_to_one(findings: Sequence[Finding]) -> list[Aim]:
    """Triggers to unlearn after a scan: for each detected class, all kinds of perturbation that indicate it.

    A kind indicates a class if its finding is significant, or if it flips more images to it than is common in clean
    networks and almost as many as the best kind: a network may retain the part of a trigger that only another kind of
    perturbation resembles.

    Args:
        findings: The findings of all detectors of a scan.

    Returns:
        The aims; empty if no class was detected.
    """
    judged = [(one, is_significant(one, len(findings))) for one in findings]
    found: list[Aim] = []
    for target in dict.fromkeys(one.suspected for one, certain in judged if certain):
        about = [(one, certain) for one, certain in judged if one.suspected == target]
        found += [AllToOne(inversion, target) for inversion in _indicating(about, target) or INVERSIONS]
    return found


def _indicating(findings: Sequence[tuple[Finding, bool]], target: int) -> list[Inversion]:
    """The searches that indicate a class, from (finding, significant) pairs; the smallest p-value first."""
    searches = {type(inversion).__name__: inversion for inversion in INVERSIONS}
    # A detector without a search does not indicate a kind of perturbation.
    known = [(one, certain, searches[one.detector]) for one, certain in findings if one.detector in searches]
    best = max((float(one.scores[target]) for one, certain, _ in known if certain), default=math.inf)
    chosen: dict[object, Inversion] = {}
    for one, certain, inversion in sorted(known, key=lambda part: part[0].p_value):
        if certain or (one.scores[target] > inversion.score_floor and one.scores[target] >= MIN_RELATIVE_SCORE * best):
            # Among two searches for the same kind of perturbation, the one with the smaller p-value.
            chosen.setdefault(type(inversion).change, inversion)
    return list(chosen.values())
