"""The attacker's student, which is distilled from the network during its training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bdclean.training import kd_loss


class Shadow:
    """A student that is distilled from the network, as the attacker's model of a user's student.

    It is not a module, so checkpoints do not contain it, and a resumed run starts a new one. Each process has its own.

    Args:
        network: An untrained network that maps images in [0, 1] to logits.
        lr: Learning rate of its SGD (momentum .9, weight decay 5e-4).
    """

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.network = network.train()
        self.lr = lr
        self.optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters."""
        return list(self.network.parameters())

    def logits(self, images: Tensor) -> Tensor:
        """The student's logits, (N, classes), in train mode."""
        return self.network.to(images.device)(images).to(images.dtype)

    def logits_for_frozen_weights(self, images: Tensor) -> Tensor:
        """The student's logits, (N, classes), without gradients for its weights."""
        self.network.requires_grad_(False)
        logits = self.logits(images)
        self.network.requires_grad_(True)
        return logits

    def loss(self, images: Tensor, teacher: Tensor) -> Tensor:
        """The distillation loss with respect to the teacher's logits (N, classes), at temperature 1."""
        return kd_loss(self.logits(images), teacher, 1.0)

    def learn(self, images: Tensor, teacher: Tensor) -> None:
        """Take one training step towards the teacher's logits."""
        with torch.enable_grad():
            loss = self.loss(images, teacher.detach())
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
