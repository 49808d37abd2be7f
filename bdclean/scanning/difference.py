"""Comparison of a suspect with a reference, by perturbations that flip one of the two networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdclean.scanning.base import Network, grubbs
from bdclean.scanning.goals import FlipOneNetwork
from bdclean.scanning.inversion import Inversion
from bdclean.training import batch_size, pieces

MIN_CLASS_IMAGES = 24
"""Fewest images of a class, half to search on and half to measure on; smaller classes are left out."""
JUDGED_IMAGES = 64
"""Most images of a class on which a perturbation is measured."""
MIN_SHARE = 0.25
"""Smallest share of a class that has to flip in the suspect alone for a backdoor to be found."""
MIN_RATIO = 3.0
"""A backdoor is found if that share is this many times the largest one that flips in the reference alone."""
MAX_P_VALUE = 0.005
"""A backdoor of a single source class is found if it stands out with at most this p-value."""
NOISE = 0.035
"""Lower bound of the standard deviation of shares in the outlier test: about two images of `JUDGED_IMAGES`."""
CLASS_EXCESS = 0.1
"""If so, every class counts whose share exceeds the largest share of the reference by this much."""


@dataclass(frozen=True)
class Difference:
    """Shares of images that one kind of perturbation flips in a suspect alone, and in a reference alone.

    Attributes:
        inversion: The search.
        classes: (P,) the source classes that have enough images.
        suspect_only: (P,) share of their images that flip in the suspect alone, the mean over sizes.
        reference_only: (P,) the same share for the reference alone: the effect of chance and natural features.
    """

    inversion: Inversion
    classes: Tensor
    suspect_only: Tensor
    reference_only: Tensor

    @property
    def chance(self) -> float:
        """Largest share of a class that flips in the reference alone."""
        return float(self.reference_only.max()) if len(self.reference_only) else 0.0

    @property
    def share(self) -> float:
        """Largest share of a class that flips in the suspect alone."""
        return float(self.suspect_only.max()) if len(self.suspect_only) else 0.0

    @property
    def p_value(self) -> float:
        """The p-value of the class with the largest gap between both shares, compared with the gaps of other classes.

        Each class calibrates itself: if its images flip easily, they do so in both directions.
        """
        return float(grubbs(self.suspect_only - self.reference_only, NOISE).min()) if len(self.classes) else 1.0

    @property
    def backdoor(self) -> bool:
        """Whether only a backdoor explains the difference: a share exceeds chance by far, or one class stands out."""
        far = self.share >= MIN_RATIO * self.chance
        return self.share >= MIN_SHARE and (far or (bool(self.source_classes) and self.p_value <= MAX_P_VALUE))

    @property
    def source_classes(self) -> tuple[int, ...]:
        """Classes that exceed chance; relevant if this or another kind of perturbation finds a backdoor."""
        return tuple(self.classes[self.suspect_only >= self.chance + CLASS_EXCESS].tolist())

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: shares in percent, and the classes that exceed chance."""
        return {
            "search": type(self.inversion).__name__,
            "classes_compared": len(self.classes),
            "suspect_only": round(100 * self.share, 2),
            "student_only": round(100 * self.chance, 2),
            "p_value": self.p_value,
            "backdoor": self.backdoor,
            "source_classes": list(self.source_classes),
        }


def source_classes(found: Sequence[Difference]) -> list[int]:
    """Sorted source classes of a backdoor, over all kinds of perturbation; empty if none of them finds a backdoor."""
    if not any(one.backdoor for one in found):
        return []
    return sorted({number for one in found for number in one.source_classes})


def differences(
    suspect: Network, reference: Network, images: Tensor, inversions: Sequence[Inversion], num_classes: int
) -> list[Difference]:
    """Compare a suspect with a reference by several kinds of perturbation.

    For each class, on its images only, the search looks for perturbations that flip one of the networks and not the
    other. The same search in both directions calibrates the result: between two clean networks both give the same
    shares.

    Args:
        suspect: The network that may have a backdoor.
        reference: A network with the same classes and a weaker backdoor or none.
        images: (N, C, H, W) in [0, 1], on the networks' device.
        inversions: The searches.
        num_classes: Number of classes.
    """
    with torch.no_grad():
        parts = pieces(images, batch_size(images))
        first, second = (torch.cat([network(part).argmax(1) for part in parts]) for network in (suspect, reference))
    places = [((first == number) & (second == number)).nonzero()[:, 0] for number in range(num_classes)]
    classes = [number for number, members in enumerate(places) if len(members) >= MIN_CLASS_IMAGES]
    searched = [places[number][::2] for number in classes]
    judged = [places[number][1::2][:JUDGED_IMAGES] for number in classes]
    found = []
    for inversion in inversions:
        shares = [
            _shares(one, other, images, inversion, searched, judged, first.new_tensor(classes))
            for one, other in ((suspect, reference), (reference, suspect))
        ]
        # On the CPU, because they are sent to other processes.
        found.append(Difference(inversion, torch.tensor(classes, dtype=torch.long), *(share.cpu() for share in shares)))
    return found


def _shares(
    network: Network,
    reference: Network,
    images: Tensor,
    inversion: Inversion,
    searched: list[Tensor],
    judged: list[Tensor],
    classes: Tensor,
) -> Tensor:
    """(P,) share of the images of each class that flip in the network alone, the mean over sizes."""
    together = max(1, batch_size(images) // inversion.batch_size)
    shares = []
    for first in range(0, len(classes), together):
        some = slice(first, first + together)
        goal = FlipOneNetwork(network, reference, images, searched[some], classes[some], inversion.batch_size)
        sizes = []
        for parameters in inversion.shrink(goal):
            with torch.no_grad():
                flipped = []
                for places, label, one in zip(judged[some], classes[some], parameters[:, None], strict=True):
                    changed = inversion.change(images[places], one)
                    flips = (network(changed).argmax(1) != label) & (reference(changed).argmax(1) == label)
                    flipped.append(flips.float().mean())
                sizes.append(torch.stack(flipped))
        shares.append(torch.stack(sizes).mean(0))
    return torch.cat(shares) if shares else classes.new_zeros(0).float()
