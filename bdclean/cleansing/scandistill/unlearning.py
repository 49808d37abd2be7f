"""Distillation in which a student unlearns triggers, and is judged on images that it is not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bdclean.cleansing.distill import StrongDistillCleanseModule
from bdclean.cleansing.scandistill.aims import Aim
from bdclean.cleansing.scandistill.judging import Judge
from bdclean.cleansing.scandistill.triggers import Triggers
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from bdclean.training import batch_size, kd_loss, pieces

AIMED_GRADIENT = 1.0
"""Largest norm of a gradient where triggers are unlearned: at 5, a network for inputs of 0..255 lost 1.2 points more.
While a re-initialised student learns it is that of StrongDistillCleanseModule: at 1, more of a backdoor is left."""
SEARCHED = 2048
"""Images that searches and comparisons draw from."""


class Unlearning(StrongDistillCleanseModule):
    """Distils the suspect, without a change of temperature once it has triggers: then some images carry one.

    Args:
        suspect: The network to cleanse.
        share: As in ScanDistill.
        **options: As in StrongDistillCleanseModule.

    Raises:
        InputError: If an option is out of range.
    """

    # A tenth, which students are judged by.
    needs_selection_images = 0.1
    # The suspect's answers are those without.
    uses_dropout = False
    triggers_type = Triggers

    def __init__(self, suspect: Classifier, share: tuple[float, float], **options: Any) -> None:
        super().__init__(suspect, **options)
        for bound in share:
            self.within("share", bound, 0, 1)
        self.share = share
        self.sample, self.own = torch.empty(0), torch.empty(0)
        """Images that are searched and compared on, and the suspect's predictions."""
        self.judge: Judge | None = None
        """Images that the student is judged by: none of these is trained on."""
        self.triggers: Triggers | None = None
        """What the student unlearns; None as long as nothing is known."""

    @property
    def largest_gradient(self) -> float:
        return AIMED_GRADIENT if self.triggers else super().largest_gradient

    @property
    def stride(self) -> float:
        """How many images a batch has, over all processes: for each of them the same, though their shares differ."""
        loader: Any = self.trainer.train_dataloader
        return len(loader.dataset) / len(loader)

    def prepare(self) -> None:
        batches = []
        for batch in self.batches():
            batches.append((batch.images, self.teach(batch.images).argmax(1)))
            if sum(len(classes) for _, classes in batches) >= SEARCHED:
                break
        self.sample, self.own = (torch.cat(parts) for parts in zip(*batches, strict=True))
        held_out = torch.cat([batch.images for batch in self.batches(choosing=True)])
        answers = [self.teach(part).float().softmax(1) for part in pieces(held_out, batch_size(held_out))]
        self.judge = Judge(held_out, torch.cat(answers))

    def forget(self) -> None:
        """Let go of all images."""
        self.sample, self.own = torch.empty(0), torch.empty(0)
        self.judge, self.triggers = None, None

    def triggers_of(self, aims: list[Aim]) -> Triggers:
        """What a student begins to unlearn."""
        return self.triggers_type(aims, self.teach_through, self, self.classes, self.sample, self.own, self.share)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self.triggers:
            return super().training_step(batch, batch_idx)
        images = batch.images
        if self.triggers.due(self.stride):
            with self.judged():
                self.triggers.search()
        answers = self.teach(images)  # first, as in DistillCleanseModule
        loss = kd_loss(self(self.triggers.put_on(images, answers.argmax(1))), answers, 1.0)
        self.log_loss(loss, images)
        return loss

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Within it, the student is in eval mode."""
        mode = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.set_mode(mode)

    def predicted(self) -> tuple[Judge, Tensor]:
        """The images to judge the student by, and its predictions for them."""
        assert self.judge is not None
        return self.judge, self.classes(pieces(self.judge.images, batch_size(self.judge.images)))

    def effect(self) -> float:
        assert self.triggers is not None
        return self.triggers.effect()

    def kept(self) -> float:
        judge, predicted = self.predicted()
        return judge.kept(predicted)

    def expected_loss(self) -> float:
        judge, predicted = self.predicted()
        return judge.expected_loss(predicted)

    def harmful(self) -> bool:
        judge, predicted = self.predicted()
        return bool(judge.harm(predicted).reasons)

    @torch.no_grad()
    def classes(self, parts: Iterable[Tensor]) -> Tensor:
        """What the student takes images for, (N,), given in parts (n, 3, H, W), in the precision of the training."""
        # Not one context for several calls: it keeps the weights as they were cast, and they change.
        with self.trainer.precision_plugin.forward_context():
            return torch.cat([self(part).argmax(1) for part in parts])
