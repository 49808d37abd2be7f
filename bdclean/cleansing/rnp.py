"""Reconstructive neuron pruning."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.func import functional_call

from bdclean.cleansing.base import Supervision, classes_of
from bdclean.cleansing.phases import first_epochs
from bdclean.cleansing.prune import MaskingCleanser
from bdclean.data.batch import Batch
from bdclean.metrics import correct
from bdclean.modules import Classifier
from bdclean.networks import scale


class RNP(MaskingCleanser):
    """Makes the suspect unlearn clean images, and prunes the channels that do not help to recover them.

    Unlearning: max_w L(f(x), y), until hardly any image is predicted correctly; only the backdoor is left. Recovering:
    with these weights, min_m alpha L, with a mask m in [0, 1] for each channel's scale. Channels of the suspect whose
    mask became small are pruned; their shifts stay. L is the cross-entropy.

    Source: Li, Lyu, Ma, Koren, Lyu, Li, Jiang, "Reconstructive Neuron Pruning for Backdoor Defense", ICML 2023; there
    500 images.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Learning rate of SGD in unlearning.
        mask_lr: Learning rate of the masks in recovering (SGD).
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD in unlearning (L2 penalty).
        stop_accuracy: Unlearning stops after a step on whose images at most this percentage is predicted right.
        first_phase_fraction: Largest share of the epochs that unlearning may take.
        alpha: Factor of the loss in recovering.
        threshold: Channels with a mask below this are pruned. By default the highest multiple of 0.05 whose cost on
            the selection images is within `tolerance`.
        tolerance: Percent of the selection images on which pruning may change the prediction (with labels: lose the
            right one).

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 0.9
    epochs = 40

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 0.01,
        mask_lr: float = 0.2,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        stop_accuracy: float = 20.0,
        first_phase_fraction: float = 0.5,
        alpha: float = 0.2,
        threshold: float | None = None,
        tolerance: float = 2.0,
    ) -> None:
        super().__init__(suspect, supervision, threshold, tolerance)
        self.within("mask_lr", mask_lr, 0, above=True)
        self.within("stop_accuracy", stop_accuracy, 0, 100)
        self.within("first_phase_fraction", first_phase_fraction, 0, 1)
        self.within("alpha", alpha, 0, above=True)
        self.lr = lr
        self.mask_lr = mask_lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.stop_accuracy = stop_accuracy
        self.first_phase_fraction = first_phase_fraction
        self.alpha = alpha
        self.unlearning = True
        self.counts = torch.zeros(2)
        self.steps = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        # Both phases use masks and weights, so that with several processes all of them have gradients.
        changed = scale(dict(self.named_parameters()), self.layers, self.masks)
        logits = functional_call(self, changed, (images,))
        right = correct(logits, classes_of(targets))
        self.counts = self.counts.to(self.device) + torch.stack([right.sum(), torch.full_like(right, True).sum()])
        loss = F.cross_entropy(logits, targets)
        self.log_loss(loss, images)
        return -loss if self.unlearning else self.alpha * loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Called by Lightning: train only the weights while unlearning, and only the masks afterwards."""
        for parameter in self.masks if self.unlearning else self.network.parameters():
            parameter.grad = None

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Called by Lightning: stop unlearning at `stop_accuracy`, as further steps would ruin the weights."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        # A step may take several batches.
        if self.unlearning and self.trainer.global_step > self.steps:
            right, total = self.trainer.strategy.reduce(self.counts, reduce_op="sum").tolist()
            self.unlearning = 100 * right / total > self.stop_accuracy
            self.steps, self.counts = self.trainer.global_step, torch.zeros(2)

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: stop unlearning after its share of the epochs."""
        super().on_train_epoch_end()
        if self.current_epoch + 1 >= first_epochs(self, self.first_phase_fraction):
            self.unlearning = False

    def configure_optimizers(self) -> OptimizerLRScheduler:
        first_epochs(self, self.first_phase_fraction)
        groups: list[dict[str, Any]] = [
            {"params": list(self.network.parameters())},
            {"params": list(self.masks), "lr": self.mask_lr, "weight_decay": 0.0},
        ]
        return self.sgd(self.lr, self.momentum, self.weight_decay, lambda done: 1.0, groups)
