"""The base class of methods that train in two phases."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bdclean.cleansing.base import Cleanser, Supervision
from bdclean.cleansing.finetune import FineTune
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.training import cosine


def first_epochs(cleanser: Cleanser, share: float) -> int:
    """Number of epochs of a first phase, given as a share of the training; both phases have at least one.

    Raises:
        InputError: If there are fewer than two epochs.
    """
    epochs = cleanser.trainer.max_epochs or 0
    if epochs < 2:
        raise InputError("trainer.max_epochs", epochs, f"{type(cleanser).__name__} needs at least two")
    return min(epochs - 1, max(1, round(share * epochs)))


class TwoPhases(FineTune):
    """Trains the student in a first phase, keeps its weights, and trains it differently in a second phase.

    Both phases train the same weights, so that with several processes all weights have gradients in each step. The
    learning rate falls to 0 along a cosine in each phase.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of both phases: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        first_phase_fraction: Share of the epochs of the first phase, rounded to whole epochs; each phase has at least
            one.
        first_phase_lr: Learning rate of the first phase; None is that of the second.
        **options: Options of FineTune.
    """

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision,
        first_phase_fraction: float,
        first_phase_lr: float | None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, **options)
        self.within("first_phase_fraction", first_phase_fraction, 0, 1)
        if first_phase_lr is not None:
            self.within("first_phase_lr", first_phase_lr, 0, above=True)
        self.first_phase_fraction = first_phase_fraction
        self.first_phase_lr = first_phase_lr
        self.in_second_phase = False

    def first_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of the first phase: by default that of fine-tuning."""
        return F.cross_entropy(self(images), targets)

    @abstractmethod
    def start_second_phase(self) -> None:
        """Between the phases: keep the result of the first, and set the student's initial weights for the second."""

    @abstractmethod
    def second_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of the second phase."""

    def on_train_epoch_start(self) -> None:
        """Called by Lightning: start the second phase when it is time."""
        if not self.in_second_phase and self.current_epoch >= first_epochs(self, self.first_phase_fraction):
            self.in_second_phase = True
            self.start_second_phase()
            # The momentum belongs to the weights of the first phase.
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        loss = self.second_loss(images, targets) if self.in_second_phase else self.first_loss(images, targets)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        part = first_epochs(self, self.first_phase_fraction) / (self.trainer.max_epochs or 1)

        def rate(done: float) -> float:
            if done < part:
                return cosine(done / part) * (self.first_phase_lr or self.lr) / self.lr
            return cosine((done - part) / (1 - part))

        return self.sgd(self.lr, self.momentum, self.weight_decay, rate)
