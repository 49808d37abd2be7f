"""What a suspect allows and a network re-initialised and distilled from it does not: a trigger, for example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdclean.scanning.base import Network
from bdclean.scanning.goals import Apart
from bdclean.scanning.inversion import Inversion
from bdclean.training import batch_size, pieces

FEWEST = 24
"""Images of a class, half to search with and half to judge by; classes with fewer are left out."""
JUDGED = 64
"""Images of a class, at most, by which a change is judged."""
LEAST, TIMES = 0.25, 3.0
"""A backdoor is said to be found where changes flip at least so large a share of a class in the suspect alone, and so
many times the largest share that changes found in the same way flip in the reference alone."""
BEYOND = 0.1
"""Once it is, all classes count that exceed the latter by so much."""


@dataclass(frozen=True)
class Difference:
    """By how much more one kind of change flips a suspect than a reference, for each source class.

    Attributes:
        hunter: The search.
        classes: (P,) the classes with enough images.
        forward: (P,) share of the images of each that change in the suspect alone, a mean over the sizes of changes.
        backward: (P,) the same with suspect and reference exchanged: what chance and natural features do.
    """

    hunter: Inversion
    classes: Tensor
    forward: Tensor
    backward: Tensor

    @property
    def chance(self) -> float:
        """The largest share of any class with the networks exchanged."""
        return float(self.backward.max()) if len(self.backward) else 0.0

    @property
    def share(self) -> float:
        """The largest share of any class."""
        return float(self.forward.max()) if len(self.forward) else 0.0

    @property
    def found(self) -> bool:
        """Whether it takes a backdoor to explain it."""
        return self.share >= max(LEAST, TIMES * self.chance)

    @property
    def sources(self) -> tuple[int, ...]:
        """The classes that stand out; they count where a backdoor is found by this or another kind of change."""
        return tuple(self.classes[self.forward >= self.chance + BEYOND].tolist())

    def plain(self) -> dict[str, Any]:
        """For JSON: shares in percent, and the classes that stand out."""
        return {
            "search": type(self.hunter).__name__,
            "classes_compared": len(self.classes),
            "suspect_alone": round(100 * self.share, 2),
            "student_alone": round(100 * self.chance, 2),
            "stands_out": self.found,
            "classes": list(self.sources),
        }


def source_classes(found: Sequence[Difference]) -> list[int]:
    """The classes that stand out by any kind of change, in order, if a backdoor is found; else none."""
    if not any(one.found for one in found):
        return []
    return sorted({number for one in found for number in one.sources})


def differences(
    suspect: Network, reference: Network, images: Tensor, hunters: Sequence[Inversion], num_classes: int
) -> list[Difference]:
    """Compare a suspect with a reference by each of some kinds of change.

    Each class is searched by its own images alone, for changes that flip one of the networks and not the other. Both
    ways are searched alike, so that one says how large a share the other has to exceed: two honest networks differ
    from each other as much as the other from the one.

    Args:
        suspect: The network.
        reference: One with the same classes that is thought to have less of a backdoor; a part of it may be left.
        images: (N, C, H, W) in [0, 1], on the networks' device.
        hunters: The searches.
        num_classes: How many classes both tell apart.
    """
    with torch.no_grad():
        parts = pieces(images, batch_size(images))
        first, second = (torch.cat([network(part).argmax(1) for part in parts]) for network in (suspect, reference))
    places = [((first == number) & (second == number)).nonzero()[:, 0] for number in range(num_classes)]
    classes = [number for number, own in enumerate(places) if len(own) >= FEWEST]
    searched = [places[number][::2] for number in classes]
    judged = [places[number][1::2][:JUDGED] for number in classes]
    found = []
    for hunter in hunters:
        shares = [
            _shares(one, other, images, hunter, searched, judged, first.new_tensor(classes))
            for one, other in ((suspect, reference), (reference, suspect))
        ]
        # From one process to others they go by way of the CPU.
        found.append(Difference(hunter, torch.tensor(classes, dtype=torch.long), *(share.cpu() for share in shares)))
    return found


def _shares(
    network: Network,
    reference: Network,
    images: Tensor,
    hunter: Inversion,
    searched: list[Tensor],
    judged: list[Tensor],
    classes: Tensor,
) -> Tensor:
    """(P,) the share of the images of each class that changes flip in the network alone, a mean over their sizes."""
    together = max(1, batch_size(images) // hunter.batch_size)
    shares = []
    for first in range(0, len(classes), together):
        some = slice(first, first + together)
        goal = Apart(network, reference, images, searched[some], classes[some], hunter.batch_size)
        sizes = []
        for parameters in hunter.shrink(goal):
            with torch.no_grad():
                flipped = []
                for places, own, one in zip(judged[some], classes[some], parameters[:, None], strict=True):
                    changed = hunter.change(images[places], one)
                    flips = (network(changed).argmax(1) != own) & (reference(changed).argmax(1) == own)
                    flipped.append(flips.float().mean())
                sizes.append(torch.stack(flipped))
        shares.append(torch.stack(sizes).mean(0))
    return torch.cat(shares) if shares else classes.new_zeros(0).float()
