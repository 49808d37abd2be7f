"""Distillation in which the student unlearns recovered triggers, evaluated on held-out images."""

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

UNLEARNING_GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm while triggers are unlearned: at 5, a network for inputs of 0..255 lost 1.2 points
more. After re-initialisation StrongDistillCleanseModule's norm applies: at 1, more of a backdoor is left."""
SAMPLE_IMAGES = 2048
"""Maximum number of images that searches and comparisons draw from."""


class Unlearning(StrongDistillCleanseModule):
    """Distils the suspect; once triggers are known, some of the images carry one, and the temperature is 1.

    Args:
        suspect: The network to cleanse.
        share: Fraction of each batch that carries a recovered trigger: [if the triggers found in the student flip no
            image, if they flip all].
        **options: Options of StrongDistillCleanseModule.

    Raises:
        InputError: If an option is out of range.
    """

    # The student is evaluated on a tenth of the images.
    needs_selection_images = 0.1
    # The suspect's targets are computed without dropout.
    uses_dropout = False
    triggers_type = Triggers

    def __init__(self, suspect: Classifier, share: tuple[float, float], **options: Any) -> None:
        super().__init__(suspect, **options)
        for bound in share:
            self.within("share", bound, 0, 1)
        self.share = share
        self.sample, self.pseudo_labels = torch.empty(0), torch.empty(0)
        """Images for searches and comparisons, and the suspect's predictions for them."""
        self.judge: Judge | None = None
        """The held-out images, on which the student is evaluated."""
        self.triggers: Triggers | None = None
        """The triggers that the student unlearns; None if none is known."""

    @property
    def largest_gradient(self) -> float:
        return UNLEARNING_GRADIENT_NORM if self.triggers else super().largest_gradient

    @property
    def stride(self) -> float:
        """Mean number of images in a batch over all processes, the same number in each of them."""
        loader: Any = self.trainer.train_dataloader
        return len(loader.dataset) / len(loader)

    def prepare(self) -> None:
        batches = []
        for batch in self.batches():
            batches.append((batch.images, self.teach(batch.images).argmax(1)))
            if sum(len(classes) for _, classes in batches) >= SAMPLE_IMAGES:
                break
        self.sample, self.pseudo_labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        held_out = torch.cat([batch.images for batch in self.batches(choosing=True)])
        probabilities = [self.teach(part).float().softmax(1) for part in pieces(held_out, batch_size(held_out))]
        self.judge = Judge(held_out, torch.cat(probabilities))

    def forget(self) -> None:
        """Release all images."""
        self.sample, self.pseudo_labels = torch.empty(0), torch.empty(0)
        self.judge, self.triggers = None, None

    def triggers_of(self, aims: list[Aim]) -> Triggers:
        """The triggers of some aims, before the first search."""
        return self.triggers_type(
            aims, self.teach_through, self, self.classes, self.sample, self.pseudo_labels, self.share
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self.triggers:
            return super().training_step(batch, batch_idx)
        images = batch.images
        if self.triggers.due(self.stride):
            with self.judged():
                self.triggers.search()
        logits = self.teach(images)  # first, as in DistillCleanseModule
        loss = kd_loss(self(self.triggers.perturb(images, logits.argmax(1))), logits, 1.0)
        self.log_loss(loss, images)
        return loss

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Put the student into eval mode for the duration of the context."""
        mode = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.set_mode(mode)

    def predicted(self) -> tuple[Judge, Tensor]:
        """The held-out images, and the student's predictions for them."""
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
        """The student's predictions (N,) for images given in parts (n, 3, H, W), in the precision of the training."""
        # One context per call: autocast caches cast weights, which training changes.
        with self.trainer.precision_plugin.forward_context():
            return torch.cat([self(part).argmax(1) for part in parts])
