"""Feature shift tuning."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.reinitialise import reinitialise, run_seed
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import find_stages, weights


class FST(FineTune):
    """Fine-tunes with a new head that is pushed away from the old one, so that the features have to shift.

    min L(f(x), y) + alpha <W, W_0>, with the head's weight W, rescaled to |W| = |W_0| after each step, W_0 that of the
    suspect, <,> the sum over all elements, and L the cross-entropy. The head starts from random weights.

    Source: Min, Qin, Shen, Cheng, "Towards Stable Backdoor Purification through Feature Shift Tuning", NeurIPS 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of the training: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        alpha: Weight of the penalty; the paper uses 0.2 for CIFAR-10, 0.1 for GTSRB and 0.001 for CIFAR-100.
        weight_decay: Weight decay of SGD (L2 penalty); none by default, as in the paper.
        seed: Seed of the new head's weights; by default --seed_everything.
        **options: Options of FineTune.

    Raises:
        InputError: If the network has no separate head with weights, or an option is out of range.
    """

    relative_time = 1.1
    epochs = 10

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        alpha: float = 0.2,
        weight_decay: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, weight_decay=weight_decay, **options)
        self.within("alpha", alpha, 0)
        self.alpha = alpha
        layers = find_stages(suspect, suspect.image_size)
        if not layers or "weight" not in weights(layers[-1].module):
            raise InputError("method", "FST", "the network has no separate head with weights")
        self.head = f"{layers[-1].name}.weight"
        self.register_buffer("before", self.get_parameter(self.head).detach().clone(), persistent=False)
        self.before: Tensor
        self.seed = run_seed(seed)
        reinitialise(self, {layers[-1].name: 1.0}, torch.Generator().manual_seed(self.seed))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        similarity = (self.get_parameter(self.head) * self.before).sum()
        loss = F.cross_entropy(self(images), targets) + self.alpha * similarity
        self.log_loss(loss, images)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Called by Lightning: keep the head's norm."""
        head = self.get_parameter(self.head)
        head.mul_(self.before.norm() / head.norm().clamp(min=1e-12))
