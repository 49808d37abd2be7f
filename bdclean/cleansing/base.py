"""What every cleansing method shares: a suspect goes in, a network of the same architecture comes out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bdclean.metrics import Agreement
from bdclean.modules import Classifier


class Cleanser(Classifier):
    """Trains a copy of the suspect, the student, beside the frozen suspect, the teacher.

    A new method is a subclass in a file of its own with a `training_step` on bare images and `configure_optimizers`. As
    a classifier it is the student, and what it saves is the student; the teacher stays out of its `state_dict`.

    Args:
        suspect: The network to cleanse. It is not changed.
    """

    lr_option = "--method.lr"

    def __init__(self, suspect: Classifier) -> None:
        super().__init__(**suspect.description)
        self.teacher = copy.deepcopy(suspect).requires_grad_(False).eval()
        self.network.load_state_dict(suspect.network.state_dict())
        # Lightning does not call train() before it fits, and the suspect was in eval mode when it was judged.
        self.train()
        self.agreement = Agreement()

    def train(self, mode: bool = True) -> Cleanser:
        """Set the student's mode; the teacher answers in eval mode, always."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    def teach(self, images: Tensor) -> Tensor:
        """The suspect's logits of a batch of images in [0, 1], without a gradient."""
        with torch.no_grad():
            return self.teacher(images)

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        super().test_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self.agreement.update(self(batch[0]), self.teach(batch[0]))
            self.log("test/agreement", self.agreement, on_step=False, on_epoch=True, add_dataloader_idx=False)

    def describe(self) -> str:
        """What the method does to this network, as a Markdown table; empty if there is nothing to tell."""
        return ""
