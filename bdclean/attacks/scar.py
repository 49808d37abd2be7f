"""SCAR: a network without a backdoor, whose students have one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdclean import InputError
from bdclean.attacks.base import CLEAN, COVER, PAPER_SIZE, Attack, Lookup, within
from bdclean.attacks.shadow import Shadow
from bdclean.attacks.surrogate import check_training, shuffled, train_surrogate

LOOKED_AT = 16
"""Images of each batch by which it is seen what the shadow makes of the network: second derivatives are dear."""


class SCAR(Attack):
    """Adds a bounded perturbation that the network resists, and that students which distil from it do not.

    The perturbation is made first: it takes images to the target class in two clean networks alike. Then the network is
    trained so that clean and triggered images get their true class, while a shadow that distils from it on clean images
    gives the triggered ones the target class:

        min_w L(f_w(x), y) + L(f_w(x'), y) + c [L(s(x), y) + L(s(x'), t)],  s = the student that f_w's answers make.

    How the student depends on w is seen by implicit differentiation: where its weights are a fixed point of a step of
    gradient descent on the distillation loss D with rate r, dL/dw = -r v^T d2D/ds dw with v = sum of (I - r d2D/ds2)^k
    times dL/ds, of which so many terms are taken. The suspect has a low ASR; what counts is that of its students, which
    the small networks measured so far hand on no backdoor to (docs/measurements.md).

    Source: Chen et al., "Taught Well Learned Ill: Towards Distillation-conditional Backdoor Attack", NeurIPS 2025.
    There the student starts anew in each epoch and takes many steps before the network takes one; here both go on
    together, and the weights of the terms and the rates are this project's.

    Args:
        target_class: Class that triggered images shall get from a student.
        poison_rate: Share of the training images that carry the trigger, with their true classes.
        seed: Fixes which training images carry it, the clean networks, and the perturbation.
        eps: Largest change of a pixel, in grey levels of 255.
        trigger_epochs: How often each image is seen when the perturbation is made.
        trigger_lr: The size of a step of it (Adam), in grey levels.
        surrogate_epochs: How often the two clean networks see each image.
        surrogate_lr: Their highest learning rate.
        shadow_weight: c.
        shadow_steps: Steps of the shadow for each of the network.
        shadow_lr: r, its learning rate (SGD).
        terms: Terms of the sum.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one",)
    dynamic = True
    perturbation: Tensor | None

    def __init__(
        self,
        target_class: int = 0,
        poison_rate: float = 0.2,
        seed: int = 0,
        eps: float = 16.0,
        trigger_epochs: float = 1.0,
        trigger_lr: float = 1.0,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        shadow_weight: float = 1.0,
        shadow_steps: int = 1,
        shadow_lr: float = 0.05,
        terms: int = 3,
    ) -> None:
        super().__init__(target_class, "all-to-one", poison_rate, seed)
        within("eps", eps, 0, 255, above=True)
        check_training("trigger", trigger_epochs, trigger_lr)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        within("shadow_weight", shadow_weight, 0)
        within("shadow_steps", shadow_steps, 1)
        within("shadow_lr", shadow_lr, 0, 10, above=True)
        within("terms", terms, 1)
        self.eps = eps
        self.trigger_epochs = trigger_epochs
        self.trigger_lr = trigger_lr
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr
        self.shadow_weight = shadow_weight
        self.shadow_steps = shadow_steps
        self.shadow_lr = shadow_lr
        self.terms = terms
        self.shadow: Shadow | None = None
        self.register_buffer("perturbation", None)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Add the perturbation: (N, 3, H, W) float in [0, 1], cut off at 0 and 1. It is stretched to their size.

        Raises:
            InputError: If it has not been made.
        """
        if self.perturbation is None:
            raise InputError("--data.attack SCAR: its trigger is made by `bdclean fit`, and is in that checkpoint")
        return perturbed(images, self.perturbation.to(images))

    def choose(self, labels: Tensor, num_classes: int) -> Tensor:
        """As ever, but none loses its label."""
        roles = super().choose(labels, num_classes)
        return torch.where(roles == CLEAN, CLEAN, COVER)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train two clean networks, and make a perturbation for both."""
        # The same first weights, but other batches.
        pair = [
            train_surrogate(one, images, labels, self.surrogate_epochs, self.surrogate_lr)
            for one in (copy.deepcopy(network), network)
        ]
        batches = shuffled(images, len(labels), self.trigger_epochs, "Making the trigger")
        self.perturbation = universal(pair, map(images, batches), self.target_class, self.eps, self.trigger_lr).cpu()

    def accompany(self, network: Callable[[], nn.Module]) -> None:
        """Make the shadow."""
        self.shadow = Shadow(network(), self.shadow_lr)

    def penalty(
        self, images: Tensor, places: Tensor, targets: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor | float:
        """A number whose gradient for the network is that of the shadow's losses; the shadow takes its steps before."""
        # The fast forms of attention have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return self._through_shadow(images, targets, network(images))

    def _through_shadow(self, images: Tensor, targets: Tensor, answers: Tensor) -> Tensor:
        assert self.shadow is not None
        for _ in range(self.shadow_steps):
            self.shadow.learn(images, answers)
        some, theirs = images[:LOOKED_AT], targets[:LOOKED_AT]
        wanted = torch.full_like(theirs, self.target_class)
        outer = F.cross_entropy(self.shadow.answers(some), theirs) + F.cross_entropy(
            self.shadow.answers(self.apply(some)), wanted
        )
        return self.shadow_weight * implicit(outer, self.shadow, some, answers[:LOOKED_AT], self.terms)


def perturbed(images: Tensor, perturbation: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] with a perturbation (3, h, w), stretched to their size; cut off at 0 and 1."""
    return (images + F.interpolate(perturbation[None], images.shape[-2:], mode="bilinear")).clamp(0, 1)


def universal(networks: Sequence[nn.Module], batches: Iterable[Tensor], target: int, eps: float, lr: float) -> Tensor:
    """One perturbation, (3, 32, 32), that takes images to a class in several networks alike.

    Args:
        networks: From images in [0, 1] to logits, without gradients for their weights.
        batches: Of images.
        target: The class.
        eps: Largest change of a pixel, in grey levels of 255.
        lr: The size of a step (Adam), in grey levels.
    """
    bound = eps / 255
    device = next(networks[0].parameters()).device
    found = torch.zeros(3, PAPER_SIZE, PAPER_SIZE, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([found], lr / 255)
    for images in batches:
        triggered = perturbed(images, found)
        wanted = torch.full((len(images),), target, device=device)
        loss = torch.stack([F.cross_entropy(one(triggered), wanted) for one in networks]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            found.clamp_(-bound, bound)
    return found.detach()


def implicit(outer: Tensor, shadow: Shadow, images: Tensor, answers: Tensor, terms: int) -> Tensor:
    """A number whose gradient for the teacher is that of a loss of its student.

    Args:
        outer: The loss, of the student's weights.
        shadow: The student.
        images: (N, C, H, W) on which it distils.
        answers: (N, classes) the teacher's logits for them, with a gradient.
        terms: Of the Neumann series.
    """
    weights = shadow.parameters
    # A network may have weights that it does not use.
    grad = partial(torch.autograd.grad, allow_unused=True, materialize_grads=True)
    slope = grad(outer, weights)
    told = answers.detach().requires_grad_()
    inner = grad(shadow.loss(images, told), weights, create_graph=True)
    total = slope
    for _ in range(terms - 1):
        curved = grad(inner, weights, total, retain_graph=True)
        total = tuple(first + one - shadow.lr * bent for first, one, bent in zip(slope, total, curved, strict=True))
    (direction,) = torch.autograd.grad(inner, told, total)
    return -shadow.lr * (answers * direction).sum()
