"""What every cleansing method shares: a suspect goes in, a network of the same architecture comes out."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from bdclean import InputError
from bdclean.metrics import Agreement
from bdclean.modules import Classifier
from bdclean.modules.classifier import CONFUSION_CLASSES, Batch


def frozen(network: nn.Module) -> nn.Module:
    """The same network in eval mode and without gradients, as modules of their own that share its numbers."""
    shared: dict[int, Any] = {id(value): value.detach() for value in network.buffers()}
    shared |= {id(value): nn.Parameter(value.detach(), requires_grad=False) for value in network.parameters()}
    return copy.deepcopy(network, shared).eval()


class Cleanser(Classifier):
    """Trains a copy of the suspect, the student, beside the frozen suspect, the teacher.

    A new method is a subclass in a file of its own with a `training_step` on bare images and `configure_optimizers`. As
    a classifier it is the student, and what it saves is the student; the teacher stays out of its `state_dict`.

    Args:
        suspect: The network to cleanse. It is not changed.
    """

    lr_option = "--method.lr"

    def __init__(self, suspect: Classifier) -> None:
        try:
            student = copy.deepcopy(suspect.network).requires_grad_(True)
        except RuntimeError as error:
            raise InputError(f"--model.arch {suspect.hparams['arch']}: cannot be copied ({error})") from error
        super().__init__(student, **suspect.hparams)
        self.origin, self.prefix = suspect.origin, suspect.prefix
        self.teacher = frozen(suspect.network)
        # Lightning does not call train() before it fits, and the suspect was in eval mode when it was judged.
        self.train()
        self.agreement = nn.ModuleDict({"val": Agreement(), "test": Agreement()})
        few = self.num_classes <= CONFUSION_CLASSES
        self.moves = MulticlassConfusionMatrix(self.num_classes) if few else None
        self.moved: Tensor | None = None

    def train(self, mode: bool = True) -> Cleanser:
        """Set the student's mode; the teacher answers in eval mode, always."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    def teach(self, images: Tensor) -> Tensor:
        """The suspect's logits of a batch of images in [0, 1], without a gradient."""
        with torch.no_grad():
            return self.teacher(self.normalize(images))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._compare(batch if isinstance(batch, Tensor) else batch[0], "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().test_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            images = batch if isinstance(batch, Tensor) else batch[0]
            answers, teacher = self._compare(images, "test")
            if self.moves is not None:
                self.moves.update(answers, teacher.argmax(1))

    def on_test_epoch_end(self) -> None:
        """Keep how the predictions moved: rows the suspect's classes, columns the student's."""
        super().on_test_epoch_end()
        if self.moves is not None and self.moves.update_count:
            self.moved = self.moves.compute().cpu()
            self.moves.reset()

    def _compare(self, images: Tensor, stage: str) -> tuple[Tensor, Tensor]:
        """Log the agreement of student and suspect, and give the logits of both."""
        answers, teacher = self(images), self.teach(images)
        metric = cast(Metric, self.agreement[stage])
        metric.update(answers, teacher)
        self.log(f"{stage}/agreement", metric, on_step=False, on_epoch=True, add_dataloader_idx=False)
        return answers, teacher

    def describe(self) -> str:
        """What the method does to this network, as a Markdown table; empty if there is nothing to tell."""
        return ""
