"""Of many classes a few are searched: those that a screen names, and others at random, by which they are judged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from bdclean.scanning.base import Detector, Finding, Network
from bdclean.scanning.screening import screen
from bdclean.training import batch_size, pieces

CANDIDATES = 4
"""Classes that a screen names."""
CONTROLS = 24
"""Classes at random, among which a candidate has to stand out."""

SPREAD = 1.5
"""Factor of `Detector.noise`, for scores of which most are almost 0 and a few are not."""


@dataclass(frozen=True)
class Chosen:
    """The classes that are searched.

    Attributes:
        candidates: (K,) those that the screen names.
        controls: (M,) others, drawn at random.
    """

    candidates: Tensor
    controls: Tensor

    @property
    def classes(self) -> Tensor:
        """(K + M,) all of them."""
        return torch.cat([self.candidates, self.controls])


def choose(network: Network, images: Tensor, num_classes: int) -> Chosen:
    """Screen a network of many classes. Arguments as in `Detector.find`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.no_grad():
            own = torch.cat([network(part).argmax(1) for part in pieces(images, batch_size(images))])
        # Of all classes, whatever the screen says of them: else they would be too alike.
        controls = torch.randperm(num_classes)[:CONTROLS].to(images.device)
        easy = screen(network, images, own, num_classes).index_fill(0, controls, -1)
        return Chosen(easy.topk(CANDIDATES).indices, controls)


def find_among(detector: Detector, network: Network, images: Tensor, num_classes: int, chosen: Chosen) -> Finding:
    """What a detector says of a network of which only some classes are searched.

    Args:
        detector: The detector.
        network: As in `Detector.find`.
        images: As in `Detector.find`.
        num_classes: As in `Detector.find`.
        chosen: The classes.

    Returns:
        The scores of other classes are nan, and their p-values 1.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        some, trigger = detector.score_some(network, images, num_classes, chosen.classes)
    some, classes = some.cpu(), chosen.classes.cpu()
    found = selected(some, len(chosen.candidates), num_classes, SPREAD * detector.noise)
    scores = torch.full((num_classes,), torch.nan).index_copy(0, classes, some)
    return Finding(type(detector).__name__, scores, torch.ones(num_classes).index_copy(0, classes, found), trigger)


def selected(scores: Tensor, candidates: int, num_classes: int, noise: float) -> Tensor:
    """How likely it is by chance that one of all classes is as far above some drawn at random as each that is searched.

    A score of one more class, less the mean of M normal ones, over their standard deviation times sqrt(1 + 1 / M), has
    Student's distribution with M - 1 degrees of freedom. Bonferroni's correction is for all classes, and not for those
    alone that are searched: however the candidates were chosen, none is further above than the furthest of all.

    Args:
        scores: (K + M,), the candidates' first, then the controls'; about normal but for a backdoor.
        candidates: K.
        num_classes: Of the network.
        noise: The least standard deviation that is believed.

    Returns:
        (K + M,) p-values; each control is compared with the others.
    """
    values = scores.double()
    controls = values[candidates:].expand(len(values), -1)
    # Of a control, its own score does not count.
    kept = torch.ones_like(controls)
    kept[candidates:].fill_diagonal_(0)
    number = kept.sum(1)
    mean = (controls * kept).sum(1) / number
    spread = (((controls - mean[:, None]) ** 2 * kept).sum(1) / (number - 1)).sqrt().clamp(min=noise)
    t = (values - mean) / (spread * (1 + 1 / number).sqrt()).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.from_numpy(num_classes * special.stdtr((number - 1).numpy(), -t.numpy())).clamp(max=1).float()
