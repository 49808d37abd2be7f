"""Adversarial neuron pruning."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.func import functional_call

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.neuron_noise import worst_factors
from bdclean.cleansing.prune import MaskingCleanser
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from bdclean.networks import scale


class ANP(MaskingCleanser):
    """Prunes the channels that an adversary can use: those whose small change makes clean images fail.

    min_m alpha L(m w, b) + (1 - alpha) max_{|delta|, |xi| <= eps} L((m + delta) w, (1 + xi) b), with a mask m in [0,
    1] for each channel's scale w, shifts b, and L the cross-entropy; delta and xi start uniform in [-eps, eps] and
    take one step eps sign(grad L). Channels with a small mask are pruned; their shifts stay.

    Source: Wu, Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021; there 500 images and
    2,000 steps.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of L: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Learning rate of the masks (SGD).
        momentum: Momentum of SGD.
        eps: Largest relative change of scales and shifts.
        alpha: Weight of the loss without perturbation, from 0 to 1.
        threshold: Channels with a mask below this are pruned. By default the highest multiple of 0.05 whose cost on
            the selection images is within `tolerance`.
        tolerance: Percent of the selection images on which pruning may change the prediction (with labels: lose the
            right one).

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 1.7
    epochs = 50

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 0.2,
        momentum: float = 0.9,
        eps: float = 0.4,
        alpha: float = 0.2,
        threshold: float | None = None,
        tolerance: float = 2.0,
    ) -> None:
        super().__init__(suspect, supervision, threshold, tolerance)
        self.within("eps", eps, 0)
        self.within("alpha", alpha, 0, 1)
        self.lr = lr
        self.momentum = momentum
        self.eps = eps
        self.alpha = alpha
        self.network.requires_grad_(False)

    def loss(self, images: Tensor, targets: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        """L with the channels' scales and shifts multiplied by factors, one tensor a layer."""
        changed = scale(dict(self.named_parameters()), self.layers, weights, biases)
        return F.cross_entropy(functional_call(self, changed, (images,)), targets)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        masks = list(self.masks)
        worst = worst_factors(lambda scales, shifts: self.loss(images, targets, scales, shifts), masks, self.eps)
        perturbed = self.loss(images, targets, *worst)
        loss = self.alpha * self.loss(images, targets, masks, []) + (1 - self.alpha) * perturbed
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, 0.0, lambda done: 1.0, self.masks)
