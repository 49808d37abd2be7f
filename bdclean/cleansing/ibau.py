"""Adversarial unlearning of backdoors via implicit hypergradient."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdclean import first_line
from bdclean.cleansing.base import Cleanser, Supervision
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.perturbations import radius


class IBAU(Cleanser):
    """Unlearns a universal perturbation, with the gradient through the search for that perturbation.

    min_w max_{|d|_2 <= eps} H(d, w), H(d, w) = L(f_w(x + d), y): one perturbation d for all images stands for the
    trigger. In each epoch d starts at 0 and ascends -G(d) = L(f(x + d), f's predicted class) - c |d|^2, one projected
    step for each batch. The weights follow the gradient of H(d(w), w): with the map Phi(d, w) = d - s grad_d G on one
    batch and its y, whose fixed point d(w) is, it is grad_w H + (dPhi/dw)^T v, where v = grad_d H + (dPhi/dd)^T v is
    found by `rounds` iterations. The network stays in eval mode, so that its batch norm statistics do not change.

    Source: Zeng, Chen, Park, Mao, Jin, Jia, "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR
    2022. As in its authors' code, only some images of a batch are perturbed for H. There only c bounds d: on networks
    with steep gradients d grows to many times the range of a pixel.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Learning rate of Adam for the weights.
        inner_lr: Step size of the perturbation d, in pixel values.
        eps: Largest Euclidean norm of d, in pixel values, for images of 32 pixels; for others in proportion to their
            side.
        penalty: Weight c of the penalty on |d|^2.
        map_step: Step size s of the map Phi.
        rounds: Number of iterations for v; 0 ignores the gradient through d.
        share: Share of the images of a batch that are perturbed for H, at least one image.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 6.4
    epochs = 100
    freezes_batch_norm = True

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 1e-4,
        inner_lr: float = 10.0,
        eps: float = 10.0,
        penalty: float = 0.001,
        map_step: float = 0.1,
        rounds: int = 5,
        share: float = 0.01,
    ) -> None:
        super().__init__(suspect, supervision)
        self.within("lr", lr, 0, above=True)
        self.within("inner_lr", inner_lr, 0)
        self.within("eps", eps, 0)
        self.within("penalty", penalty, 0)
        self.within("map_step", map_step, 0)
        self.within("rounds", rounds, 0)
        self.within("share", share, 0, 1)
        self.lr = lr
        self.inner_lr = inner_lr
        self.eps = eps
        self.penalty = penalty
        self.map_step = map_step
        self.rounds = rounds
        self.share = share
        self.perturbation = torch.zeros(0)
        self.example: tuple[Tensor, Tensor] | None = None

    def inner_loss(self, perturbation: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        """The inner objective G."""
        return self.penalty * perturbation.square().sum() - F.cross_entropy(self(images + perturbation), targets)

    def on_train_epoch_start(self) -> None:
        """Called by Lightning: find the perturbation of this round, the same one in each process."""
        self.perturbation = torch.zeros(())
        for images, targets in self.images():
            if self.example is None:
                self.example = images, targets
            start = self.perturbation.to(images) + torch.zeros_like(images[:1])
            with torch.enable_grad():
                start.requires_grad_()
                with torch.no_grad():
                    predicted = self(images).argmax(1)
                (gradient,) = torch.autograd.grad(self.inner_loss(start, images, predicted), start)
            stepped = (start - self.inner_lr * gradient).detach()
            self.perturbation = stepped.renorm(2, 0, radius(self.eps, self.image_size))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        perturbation = self.perturbation.requires_grad_()
        chosen = torch.zeros(len(images), 1, 1, 1, device=self.device)
        chosen[: max(1, math.floor(self.share * len(images)))] = 1
        loss = F.cross_entropy(self(images + chosen * perturbation), targets)
        self.log_loss(loss, images)
        if self.rounds == 0:
            return loss
        assert self.example is not None
        (slope,) = torch.autograd.grad(loss, perturbation, retain_graph=True)
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            inner = self.inner_loss(perturbation, *self.example)
        (gradient,) = torch.autograd.grad(inner, perturbation, create_graph=True)
        mapped = perturbation - self.map_step * gradient
        v = torch.zeros_like(slope)
        for _ in range(self.rounds):
            try:
                (through,) = torch.autograd.grad(mapped, perturbation, v, retain_graph=True)
            except RuntimeError as error:
                if "derivative" not in str(error):
                    raise
                raise InputError(
                    "method.rounds",
                    self.rounds,
                    f"a layer of the network has no second derivative ({first_line(error)}); 0 needs none",
                ) from error
            v = through + slope
        # The value is the loss; the gradient includes the path through the perturbation.
        indirect = (mapped * v.detach()).sum()
        return loss + indirect - indirect.detach()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.lr)
