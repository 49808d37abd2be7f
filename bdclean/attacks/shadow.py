"""The attacker's student, that learns from the network while this is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bdclean.training import kd_loss


class Shadow:
    """A student that distils from the network: what a user's student will be like, as far as an attacker can know.

    It is no module: no checkpoint has it, and an interrupted run goes on with a new one. Each process has its own.

    Args:
        network: From images in [0, 1] to logits, untrained.
        lr: Learning rate of its SGD (momentum .9, weight decay 5e-4).
    """

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.network = network.train()
        self.lr = lr
        self.optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What it learns."""
        return list(self.network.parameters())

    def answers(self, images: Tensor) -> Tensor:
        """Its logits, (N, classes), in train mode."""
        return self.network.to(images.device)(images).to(images.dtype)

    def answers_to(self, images: Tensor) -> Tensor:
        """The same, without a gradient for its weights."""
        self.network.requires_grad_(False)
        answers = self.answers(images)
        self.network.requires_grad_(True)
        return answers

    def loss(self, images: Tensor, teacher: Tensor) -> Tensor:
        """How far its answers are from the teacher's logits (N, classes), at temperature 1."""
        return kd_loss(self.answers(images), teacher, 1.0)

    def learn(self, images: Tensor, teacher: Tensor) -> None:
        """Take one step towards the teacher's logits."""
        with torch.enable_grad():
            loss = self.loss(images, teacher.detach())
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
