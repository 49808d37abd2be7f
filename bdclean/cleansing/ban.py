"""Fine-tuning against adversarial neuron noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.func import functional_call

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.neuron_noise import worst_factors
from bdclean.cleansing.prune import channels_of
from bdclean.cleansing.steps import fixed_statistics
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from bdclean.networks import scale


class BAN(FineTune):
    """Fine-tunes the suspect so that noise of its neurons does not change its predictions.

    min_w L(f(x; w, b), y) + robust max_{|delta|, |xi| <= eps} L(f(x; (1 + delta) w, (1 + xi) b), y), with the scale w
    and the shift b of each channel and L the cross-entropy. Noise in the worst direction activates the neurons of a
    backdoor before those of the classes. delta and xi start uniform in [-eps, eps] and take `steps` steps eps / steps
    sign(grad L), for each batch. With several processes, each computes the noise from its own part of a batch.

    Source: Xu, Liu, Koffas, Yu, Picek, "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise", NeurIPS 2024;
    the fine-tuning alone, without the detection. In the authors' code, only batch norms have noise, the second pass
    counts in their running statistics, and the noise is not clipped; here it acts on all convolution and linear layers
    but the head, on the norm behind them if there is one, and is clipped, as in ANP.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        eps: Largest relative change of scales and shifts; the default is that of the authors' code for CIFAR-10.
        steps: Number of steps of the noise; the default is that of the authors' code.
        robust: Weight of the loss with noise; the default is that of the authors' example for CIFAR-10 (their program's
            is 0.2).
        lr: Learning rate of SGD, which is constant; the default is that of the authors' example for CIFAR-10.
        **options: Options of FineTune.

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 2.9
    epochs = 25

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        eps: float = 0.3,
        steps: int = 1,
        robust: float = 0.5,
        lr: float = 0.005,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, lr=lr, **options)
        self.within("eps", eps, 0)
        self.within("steps", steps, 0)
        self.within("robust", robust, 0)
        self.eps = eps
        self.steps = steps
        self.robust = robust
        self.layers = channels_of(suspect, type(self).__name__)

    def prepare(self) -> None:
        """Skip FineTune's check: with noise there is a gradient even if the student equals the teacher."""

    def noisy_loss(self, images: Tensor, targets: Tensor, scales: Sequence[Tensor], shifts: Sequence[Tensor]) -> Tensor:
        """L with the channels' scales and shifts multiplied by factors, one tensor a layer."""
        changed = scale(dict(self.named_parameters()), self.layers, scales, shifts)
        with fixed_statistics(self.network):
            return F.cross_entropy(functional_call(self, changed, (images,)), targets)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        ones = [torch.ones(channels.count, device=images.device, dtype=images.dtype) for channels in self.layers]
        worst = worst_factors(
            lambda scales, shifts: self.noisy_loss(images, targets, scales, shifts), ones, self.eps, self.steps
        )
        loss = F.cross_entropy(self(images), targets) + self.robust * self.noisy_loss(images, targets, *worst)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, lambda done: 1.0)
