"""Fine-tuning, the baseline of all methods."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bdclean.cleansing.base import Cleanser, Supervision
from bdclean.cleansing.steps import fixed_statistics
from bdclean.data.batch import Batch
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.training import cosine


class FineTune(Cleanser):
    """Fine-tunes the suspect on clean images: L = cross-entropy(f(x), y).

    Source: the baseline of Liu, Dolan-Gavitt, Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep
    Neural Networks", RAID 2018, and of most papers since.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Highest learning rate of SGD; it falls to 0 along a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).

    Raises:
        InputError: If the student already predicts y exactly, as a network without batch norms and dropout does with
            `teacher`.
    """

    relative_time = 1.0

    epochs = 100

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(suspect, supervision)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay

    @torch.no_grad()
    def prepare(self) -> None:
        if self.supervision == "labels":
            return
        images, targets = next(self.images())
        # In train mode, so dropout and batch statistics make a difference if the network has them.
        with fixed_statistics(self.network):
            same = torch.allclose(self(images).softmax(1), targets, atol=1e-5)
        if same:
            raise InputError(
                "method",
                type(self).__name__,
                "the network has neither batch norms nor dropout, so its predictions in training equal the targets, "
                f"and there is nothing to learn; use {Given('method.supervision', 'labels')}",
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        loss = F.cross_entropy(self(images), targets)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, cosine)
