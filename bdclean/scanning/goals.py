"""Objectives of searches for universal perturbations."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bdclean.perturbations import Change
from bdclean.scanning.base import Network, rounds
from bdclean.training import pieces

QUICK_IMAGES = 8
"""Number of images for a quick comparison of perturbations."""


class Goal(ABC):
    """The objective of P simultaneous searches for a perturbation, and their batches of images.

    Args:
        network: The network to flip.
        images: (N, C, H, W) in [0, 1], the images of the search.
        classes: (P,) a class for each perturbation.
        batch_size: Images per step, for each perturbation.
    """

    def __init__(self, network: Network, images: Tensor, classes: Tensor, batch_size: int) -> None:
        self.network = network
        self.images = images
        self.classes = classes
        self.batch_size = batch_size
        self.restart()

    def __len__(self) -> int:
        """P, the number of perturbations."""
        return len(self.classes)

    @abstractmethod
    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        """The objective on the next batch, summed over P perturbations, with a gradient."""

    @abstractmethod
    def quick_gain(self, change: Change, parameters: Tensor) -> Tensor:
        """(P,) the objective of each perturbation on a few images, the same ones in each call."""

    @abstractmethod
    def success_probabilities(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        """(K, n) the probability that each of K perturbations succeeds on each image, for a goal with P = 1.

        Args:
            change: Applies parameters to images.
            parameters: (K, ...).
            number: Largest number n of images, the same ones in each call.
        """

    @abstractmethod
    def keep(self, kept: Tensor) -> None:
        """Drop some of the perturbations; `kept` is (P,) bool."""

    @abstractmethod
    def restart(self) -> None:
        """Start again with the first batch."""


class FlipToClass(Goal):
    """Perturbations that flip images of all other classes to one class each, as an all-to-one trigger does.

    Args:
        network: The network to flip.
        images: (N, C, H, W) in [0, 1].
        predicted: (N,) the network's predictions for them.
        classes: (P,) the target classes.
        batch_size: Images per step, for each target class.
    """

    def __init__(self, network: Network, images: Tensor, predicted: Tensor, classes: Tensor, batch_size: int) -> None:
        self.predicted = predicted
        super().__init__(network, images, classes, batch_size)

    def gain(self, change: Change, parameters: Tensor) -> Tensor:
        images, predicted = next(self._batches)
        log_probabilities = self.logits(change, images, parameters).log_softmax(2)
        return (of_class(log_probabilities, self.classes) * (predicted != self.classes[:, None])).mean(1).sum()

    def quick_gain(self, change: Change, parameters: Tensor) -> Tensor:
        probabilities = self.logits(change, self.images[:QUICK_IMAGES], parameters).softmax(2)
        return (of_class(probabilities, self.classes) * (self.predicted[:QUICK_IMAGES] != self.classes[:, None])).sum(1)

    @torch.no_grad()
    def success_probabilities(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        others = self.images[self.predicted != self.classes][:number]
        if not len(others):
            return parameters.new_zeros(len(parameters), 0)
        return self.logits(change, others, parameters).softmax(2)[:, :, self.classes[0]]

    def keep(self, kept: Tensor) -> None:
        self.classes = self.classes[kept]

    def restart(self) -> None:
        self._batches = rounds(self.images, self.predicted, self.batch_size)

    def logits(self, change: Change, images: Tensor, parameters: Tensor) -> Tensor:
        """Logits (P, n, C) of images (n, C, H, W) under each of P perturbations, computed in batches."""

        def of(part: Tensor) -> Tensor:
            return self.network(under_each(change, part, parameters)).view(len(parameters), len(part), -1)

        return torch.cat([of(part) for part in pieces(images, self.batch_size)], 1)


class FlipOneNetwork(Goal):
    """Perturbations that flip a network's predictions on the images of one class each, and not those of a reference.

    There is no target class, so they find triggers with any target: also for a single source class, or all-to-all.
    Natural features of a class flip both networks, and cancel out.

    For each image x of class c they maximise log(1 - p(c|x')) + max(log q(c|x'), -5), with p of the network and q of
    the reference. The bound limits the influence of the reference.

    Args:
        network: The network to flip.
        reference: A network with the same classes.
        images: (N, C, H, W) in [0, 1].
        members: For each of P classes, the indices of the images that both networks predict as this class; not empty.
        classes: (P,) the source classes.
        batch_size: Images per step, for each class.
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
        network, reference = self._log_probabilities(change, parameters, self._first, self.batch_size)
        self._first += self.batch_size
        # p can round to 1.
        flips = torch.log1p(-network.exp().clamp(max=1 - 1e-6))
        return (flips + reference.clamp(min=-5)).mean(1).sum()

    @torch.no_grad()
    def quick_gain(self, change: Change, parameters: Tensor) -> Tensor:
        network, reference = self._log_probabilities(change, parameters, 0, QUICK_IMAGES)
        return ((1 - network.exp()) * reference.exp()).mean(1)

    @torch.no_grad()
    def success_probabilities(self, change: Change, parameters: Tensor, number: int) -> Tensor:
        images = self.images[self.members[0][:number]]
        probabilities = []
        for part in pieces(images, self.batch_size):
            changed = under_each(change, part, parameters)
            labels = self.classes.expand(len(changed))[:, None]
            p, q = (one(changed).softmax(1).gather(1, labels) for one in (self.network, self.reference))
            probabilities.append(((1 - p) * q).view(len(parameters), len(part)))
        return torch.cat(probabilities, 1)

    def keep(self, kept: Tensor) -> None:
        self.members = [members for members, keep in zip(self.members, kept.tolist(), strict=True) if keep]
        self.classes = self.classes[kept]

    def restart(self) -> None:
        self._first = 0

    def _log_probabilities(self, change: Change, parameters: Tensor, first: int, number: int) -> tuple[Tensor, Tensor]:
        """Log probabilities (P, n) of each class on its perturbed images: the network's, and the reference's."""
        batch = first + torch.arange(number, device=self.images.device)
        places = torch.stack([one[batch % len(one)] for one in self.members])
        changed = change(self.images[places.flatten()], parameters.repeat_interleave(number, 0))
        labels = self.classes.repeat_interleave(number)[:, None]

        def of(network: Network) -> Tensor:
            return network(changed).log_softmax(1).gather(1, labels).view(len(self), number)

        return of(self.network), of(self.reference)


def under_each(change: Change, images: Tensor, parameters: Tensor) -> Tensor:
    """Apply each of P perturbations to all images (n, C, H, W): (P * n, C, H, W), grouped by perturbation."""
    return change(images.repeat(len(parameters), 1, 1, 1), parameters.repeat_interleave(len(images), 0))


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """Select one class for each P from (P, N, C) values: (P, N)."""
    return values.gather(2, classes.view(-1, 1, 1).expand(-1, values.shape[1], 1)).squeeze(2)
