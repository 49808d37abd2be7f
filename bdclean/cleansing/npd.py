"""Neural polarizer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bdclean.cleansing.base import Cleanser, Supervision, classes_of
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import find_stages
from bdclean.perturbations import radius

MAX_CHANNELS = 4096
"""Largest number of channels of the polarizer: that of a VGG's first linear layer, with 25,088, would not fit."""


def polarize(weight: Tensor, polarizer: Tensor) -> Tensor:
    """Merge a linear map of channels into the layer after it: conv(P x) is a convolution too.

    Args:
        weight: (out, in, ...).
        polarizer: P, (in, in).
    """
    return torch.einsum("oi...,ij->oj...", weight, polarizer)


def strongest_other(logits: Tensor, classes: Tensor) -> Tensor:
    """The class with the largest of (N, C) logits, except the given class, for each image: (N,)."""
    return logits.scatter(1, classes[:, None], -torch.inf).argmax(1)


def refusal(logits: Tensor, classes: Tensor) -> Tensor:
    """The mean of -log(1 - p) over the batch, with p the probability of each image's given class, (N,)."""
    p = logits.softmax(1).gather(1, classes[:, None]).squeeze(1)
    return -(1.0001 - p).log().mean()


class NPD(Cleanser):
    """Inserts a linear map of channels, the polarizer, into the suspect, and trains it alone to filter triggers out.

    The polarizer is inserted before the second-to-last layer in front of the head, starts as the identity and has no
    shifts, so that it can be merged into the layer behind it after training: the network keeps its form. An adversary
    searches for d in |d|_2 <= eps, x + d in [0, 1], towards each image's second most likely class t, by projected sign
    steps. The polarizer minimises L(f(x), y) + adversarial_weight (L(f(x + d), predicted class) - log(1 - p_t) -
    log(1 - p_o)), where o is the most likely class of f(x + d) that is not the true one. The network stays in eval
    mode.

    Source: Zhu, Wei, Zha, Wu, "Neural Polarizer: A Lightweight and Effective Backdoor Defense via Purifying Poisoned
    Features", NeurIPS 2023. There a batch norm follows the map, and both stay in the network.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).
        eps: Largest Euclidean norm of d, in pixel values, for images of 32 pixels; for others in proportion to their
            side.
        steps: Number of steps of the adversary.
        step_size: Change of each pixel in a step of the adversary.
        adversarial_weight: Weight of each of the three losses on perturbed images.

    Raises:
        InputError: If the network has no such layer, or an option is out of range.
    """

    relative_time = 2.3
    epochs = 50
    freezes_batch_norm = True

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        eps: float = 3.0,
        steps: int = 2,
        step_size: float = 0.1,
        adversarial_weight: float = 0.4,
    ) -> None:
        super().__init__(suspect, supervision)
        self.within("eps", eps, 0)
        self.within("steps", steps, 0)
        self.within("step_size", step_size, 0)
        self.within("adversarial_weight", adversarial_weight, 0)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.eps = eps
        self.steps = steps
        self.step_size = step_size
        self.adversarial_weight = adversarial_weight
        parameters = dict(self.named_parameters())
        names = [
            f"{layer.name}.weight"
            for layer in find_stages(suspect, suspect.image_size)[:-1]
            if layer.acts and accepts_polarizer(layer.module) and f"{layer.name}.weight" in parameters
        ]
        if not names:
            raise InputError("method", "NPD", "no layer before the head of the network takes a linear map of channels")
        self.place = names[-2:][0]
        self.network.requires_grad_(False)
        self.polarizer = nn.Parameter(torch.eye(parameters[self.place].shape[1]))

    def polarized(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1], with the polarizer."""
        weight = polarize(self.get_parameter(self.place), self.polarizer)
        return functional_call(self, {self.place: weight}, (images,))

    def perturb(self, images: Tensor, classes: Tensor) -> Tensor:
        """The perturbation d of each image towards its class, (N, C, H, W)."""
        bound = radius(self.eps, self.image_size)
        d = torch.zeros_like(images)
        for _ in range(self.steps):
            d.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(self.polarized(images + d), classes), d)
            d = d.detach() - self.step_size * gradient.sign()
            d = d.renorm(2, 0, bound)
            d = (images + d).clamp(0, 1) - images
        return d

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        classes = classes_of(targets)
        logits = self.polarized(images)
        wanted = strongest_other(logits, classes)
        perturbed = self.polarized(images + self.perturb(images, wanted))
        others = strongest_other(perturbed, classes)
        resist = F.cross_entropy(perturbed, logits.argmax(1)) + refusal(perturbed, wanted) + refusal(perturbed, others)
        loss = F.cross_entropy(logits, targets) + self.adversarial_weight * resist
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, lambda done: 1.0, [self.polarizer])

    @torch.no_grad()
    def finish(self) -> None:
        self.change({self.place: polarize(self.get_parameter(self.place), self.polarizer)})


def accepts_polarizer(layer: Any) -> bool:
    """Whether a layer has weights (out, in, ...) that connect all input channels, at most `MAX_CHANNELS`."""
    convolution = isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd) and layer.groups == 1
    return (convolution or isinstance(layer, nn.Linear)) and layer.weight.shape[1] <= MAX_CHANNELS
