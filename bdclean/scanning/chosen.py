"""Scanning a few of many classes: candidates from a screening, and random controls for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from bdclean.scanning.base import Detector, Finding, Network
from bdclean.scanning.screening import screen
from bdclean.training import batch_size, pieces

CANDIDATES = 4
"""Number of candidates from the screening."""
CONTROLS = 24
"""Number of random control classes, with which candidates are compared."""

SPREAD = 1.5
"""Factor of `Detector.noise`, because most scores are almost 0 and a few are not."""


@dataclass(frozen=True)
class Chosen:
    """The classes to search.

    Attributes:
        candidates: (K,) classes from the screening.
        controls: (M,) other classes, drawn at random.
    """

    candidates: Tensor
    controls: Tensor

    @property
    def classes(self) -> Tensor:
        """(K + M,) all classes to search, candidates first."""
        return torch.cat([self.candidates, self.controls])


def choose(network: Network, images: Tensor, num_classes: int) -> Chosen:
    """Screen a network with many classes. The arguments are those of `Detector.find`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.no_grad():
            predicted = torch.cat([network(part).argmax(1) for part in pieces(images, batch_size(images))])
        # Drawn from all classes: the classes without the candidates would have too little variance.
        controls = torch.randperm(num_classes)[:CONTROLS].to(images.device)
        shares = screen(network, images, predicted, num_classes).index_fill(0, controls, -1)
        return Chosen(shares.topk(CANDIDATES).indices, controls)


def find_among(detector: Detector, network: Network, images: Tensor, num_classes: int, chosen: Chosen) -> Finding:
    """The finding of a detector that searches only some classes of a network.

    Args:
        detector: The detector.
        network: The network to scan.
        images: (N, 3, H, W) in [0, 1], on the network's device.
        num_classes: Number of classes of the network.
        chosen: The classes to search.

    Returns:
        The finding; the scores of other classes are nan, and their p-values 1.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        some, trigger = detector.score_some(network, images, num_classes, chosen.classes)
    some, classes = some.cpu(), chosen.classes.cpu()
    p_values = selected(some, len(chosen.candidates), num_classes, SPREAD * detector.noise)
    scores = torch.full((num_classes,), torch.nan).index_copy(0, classes, some)
    return Finding(type(detector).__name__, scores, torch.ones(num_classes).index_copy(0, classes, p_values), trigger)


def selected(scores: Tensor, candidates: int, num_classes: int, noise: float) -> Tensor:
    """The p-value of each searched class: an outlier test against random controls.

    The score of another class, minus the mean of M normal scores, over their standard deviation times sqrt(1 + 1 / M),
    has Student's distribution with M - 1 degrees of freedom. Bonferroni's correction counts all classes, not only the
    searched ones: for any choice of candidates, none has a higher score than the maximum over all classes.

    Args:
        scores: (K + M,), first of the candidates, then of the controls; approximately normal except for a backdoor.
        candidates: K.
        num_classes: Number of classes of the network.
        noise: Lower bound of the standard deviation.

    Returns:
        (K + M,) p-values; each control is compared with the others.
    """
    values = scores.double()
    controls = values[candidates:].expand(len(values), -1)
    # A control is not compared with itself.
    kept = torch.ones_like(controls)
    kept[candidates:].fill_diagonal_(0)
    number = kept.sum(1)
    mean = (controls * kept).sum(1) / number
    spread = (((controls - mean[:, None]) ** 2 * kept).sum(1) / (number - 1)).sqrt().clamp(min=noise)
    t = (values - mean) / (spread * (1 + 1 / number).sqrt()).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.from_numpy(num_classes * special.stdtr((number - 1).numpy(), -t.numpy())).clamp(max=1).float()
