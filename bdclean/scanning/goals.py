"""What a search for universal changes works towards."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bdclean.perturbations import Change
from bdclean.scanning.base import Network, rounds
from bdclean.training import pieces

GLIMPSED = 8
"""Images by which the places of a patch are compared."""


class Goal(ABC):
    """What P changes, searched for at once, have to do, and the batches of images on which they are tried.

    Args:
        network: What is searched.
        images: (N, C, H, W) in [0, 1], those that the search uses.
        classes: (P,) a class for each change.
        batch_size: Images a step, for each change.
    """

    def __init__(self, network: Network, images: Tensor, classes: Tensor, batch_size: int) -> None:
        self.network = network
        self.images = images
        self.classes = classes
        self.batch_size = batch_size
        self.restart()

    def __len__(self) -> int:
        """P, how many changes are searched for."""
        return len(self.classes)

    @abstractmethod
    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        """How near P changes come to the goal on the next batch, summed over them, with a gradient."""

    @abstractmethod
    def glimpse(self, change: Change, parameters: Tensor) -> Tensor:
        """(P,) how near each of P changes comes to the goal on a few images, the same ones each time."""

    @abstractmethod
    def likely(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        """(K, n) how likely each of K changes does on an image what the goal is, for a goal of a single change.

        Args:
            change: How images are changed.
            parameters: (K, ...).
            number: n, images at most, the same ones each time.
        """

    @abstractmethod
    def narrow(self, going: Tensor) -> None:
        """Go on with some of the changes alone, (P,) of bool."""

    @abstractmethod
    def restart(self) -> None:
        """Begin with the first batch again."""


class Towards(Goal):
    """Changes that take images of all other classes to one class each: what an all-to-one trigger does.

    Args:
        network: What is searched.
        images: (N, C, H, W) in [0, 1].
        own: (N,) the class that the network gives each.
        classes: (P,) the targets.
        batch_size: Images a step, for each target.
    """

    def __init__(self, network: Network, images: Tensor, own: Tensor, classes: Tensor, batch_size: int) -> None:
        self.own = own
        super().__init__(network, images, classes, batch_size)

    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        some, theirs = next(self._batches)
        likely = self.logits(change, some, parameters).log_softmax(2)
        return (towards(likely, self.classes) * (theirs != self.classes[:, None])).mean(1).sum()

    def glimpse(self, change: Change, parameters: Tensor) -> Tensor:
        shares = self.logits(change, self.images[:GLIMPSED], parameters).softmax(2)
        return (towards(shares, self.classes) * (self.own[:GLIMPSED] != self.classes[:, None])).sum(1)

    @torch.no_grad()
    def likely(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        others = self.images[self.own != self.classes][:number]
        if not len(others):
            return parameters.new_zeros(len(parameters), 0)
        return self.logits(change, others, parameters).softmax(2)[:, :, self.classes[0]]

    def narrow(self, going: Tensor) -> None:
        self.classes = self.classes[going]

    def restart(self) -> None:
        self._batches = rounds(self.images, self.own, self.batch_size)

    def logits(self, change: Change, images: Tensor, parameters: Tensor) -> Tensor:
        """Logits (P, n, C) of images (n, C, H, W) under each of P changes, of a batch of the images at once."""

        def of(part: Tensor) -> Tensor:
            return self.network(under_each(change, part, parameters)).view(len(parameters), len(part), -1)

        return torch.cat([of(part) for part in pieces(images, self.batch_size)], 1)


class Apart(Goal):
    """Changes that flip a network's predictions on the images of one class each, and not those of a reference.

    No target is named, so that they find a trigger wherever it sends images: also one that works on a single class, or
    sends each class to another. Natural features of a class flip both networks, and drop out.

    For each image x of class c they maximise log(1 - p(c|x')) + max(log q(c|x'), -5), with p of the network and q of
    the reference: past the bound it does not pay to please the reference less.

    Args:
        network: What is searched.
        reference: A network with the same classes.
        images: (N, C, H, W) in [0, 1].
        members: For each of P classes the places in `images` of those images that both networks give it; not empty.
        classes: (P,) the classes.
        batch_size: Images a step, for each class.
    """

    def __init__(
        self,
        network: Network,
        reference: Network,
        images: Tensor,
        members: list[Tensor],
        classes: Tensor,
        batch_size: int,
    ) -> None:
        self.reference = reference
        self.members = members
        super().__init__(network, images, classes, batch_size)

    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        stays, kept = self._log_shares(change, parameters, self._first, self.batch_size)
        self._first += self.batch_size
        # p can round to 1.
        flips = torch.log1p(-stays.exp().clamp(max=1 - 1e-6))
        return (flips + kept.clamp(min=-5)).mean(1).sum()

    @torch.no_grad()
    def glimpse(self, change: Change, parameters: Tensor) -> Tensor:
        stays, kept = self._log_shares(change, parameters, 0, GLIMPSED)
        return ((1 - stays.exp()) * kept.exp()).mean(1)

    @torch.no_grad()
    def likely(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        images = self.images[self.members[0][:number]]
        shares = []
        for part in pieces(images, self.batch_size):
            changed = under_each(change, part, parameters)
            own = self.classes.expand(len(changed))[:, None]
            stays, kept = (one(changed).softmax(1).gather(1, own) for one in (self.network, self.reference))
            shares.append(((1 - stays) * kept).view(len(parameters), len(part)))
        return torch.cat(shares, 1)

    def narrow(self, going: Tensor) -> None:
        self.members = [one for one, goes in zip(self.members, going.tolist(), strict=True) if goes]
        self.classes = self.classes[going]

    def restart(self) -> None:
        self._first = 0

    def _log_shares(self, change: Change, parameters: Tensor, first: int, number: int) -> tuple[Tensor, Tensor]:
        """Log probabilities (P, n) of each class on its own changed images: the network's, and the reference's."""
        batch = first + torch.arange(number, device=self.images.device)
        places = torch.stack([one[batch % len(one)] for one in self.members])
        changed = change(self.images[places.flatten()], parameters.repeat_interleave(number, 0))
        own = self.classes.repeat_interleave(number)[:, None]

        def of(network: Network) -> Tensor:
            return network(changed).log_softmax(1).gather(1, own).view(len(self), number)

        return of(self.network), of(self.reference)


def under_each(change: Change, images: Tensor, parameters: Tensor) -> Tensor:
    """Images (n, C, H, W) under each of P changes, (P * n, C, H, W), the first change first."""
    return change(images.repeat(len(parameters), 1, 1, 1), parameters.repeat_interleave(len(images), 0))


def towards(values: Tensor, classes: Tensor) -> Tensor:
    """Of (P, N, C) values those of one class for each P, (P, N)."""
    return values.gather(2, classes.view(-1, 1, 1).expand(-1, values.shape[1], 1)).squeeze(2)
