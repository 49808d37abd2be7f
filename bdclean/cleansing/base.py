"""The base class of cleansing methods, which turn a suspect into a clean network of the same architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from bdclean import errors
from bdclean.cleansing.comparison import Comparison
from bdclean.cleansing.harm import Harm
from bdclean.cleansing.restart import MAX_DIVERGENCES, RATE_FACTOR, initial_values, rewind, scale_rates, untrainable
from bdclean.data import PoisonDataModule
from bdclean.data.batch import Batch
from bdclean.data.notices import say
from bdclean.metrics import Share
from bdclean.modules import Classifier
from bdclean.networks import duplicate, folded, frozen
from bdclean.scanning import Finding
from bdclean.scanning.difference import Difference
from bdclean.tables import Description

Supervision = Literal["teacher", "labels"]
"""Targets of a method: the suspect's predicted probabilities, or the true labels."""
WhenClean = Literal["keep", "gentle", "strong"]
"""Result for a suspect in which no backdoor is found."""


def classes_of(targets: Tensor) -> Tensor:
    """The classes (N,) of targets from `Cleanser.supervise`."""
    return targets if targets.ndim == 1 else targets.argmax(1)


class Cleanser(Classifier):
    """Trains a copy of the suspect, the student, beside the frozen suspect, the teacher.

    A new method is a subclass in a file of its own with one or two of these: `prepare`, before the training; a
    `training_step` and `configure_optimizers`; `finish`, after the training. As a classifier it is the student, and
    its `state_dict` holds the student alone.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of the training, and of the selection images: `teacher`, the suspect's predicted
            probabilities; `labels`, the true labels.
    """

    epochs: ClassVar[int] = 12
    """Default number of epochs; 0 for a method that does not train."""
    relative_time: ClassVar[float] = 1.3
    """Time of the whole method for as many epochs, relative to FineTune: a median on CIFAR-10, small CNN."""
    needs_selection_images: ClassVar[float] = 0.0
    """Share of its images, at most 1,000, that it does not train on, to choose a threshold or to judge itself."""
    scans: ClassVar[bool] = False
    """Whether the suspect is scanned first; the findings are in `found`."""
    uses_images: ClassVar[bool] = True
    """Whether it uses images."""
    freezes_batch_norm: ClassVar[bool] = False
    """Whether the student trains in eval mode, with fixed batch norm statistics."""
    uses_dropout: ClassVar[bool] = True
    """Whether the student trains with dropout."""
    option_group = "method."
    defence: PoisonDataModule
    """The defender's images; set before training."""

    def __init__(self, suspect: Classifier, supervision: Supervision = "teacher") -> None:
        super().__init__(duplicate(suspect.network).requires_grad_(True), **suspect.hparams)
        self.supervision = supervision
        self.origin, self.prefix, self.class_names = suspect.origin, suspect.prefix, suspect.class_names
        self.teacher = frozen(suspect.network)
        self.quick = folded(nn.Sequential(self.normalize, self.teacher), self.image_size)
        """The teacher for training: normalises images in [0, 1], with batch norms folded."""
        # Lightning does not call train() before fit, and the suspect was in eval mode.
        self.train()
        self.comparison = Comparison(self.num_classes)
        self.moved: Tensor | None = None
        self.harm: Harm | None = None
        self.initial: dict[str, Tensor] = {}
        self.first_epoch, self.divergences = 0, 0
        self.when_clean: WhenClean = "gentle"
        """Result if the method `scans` and finds nothing; set after construction."""
        self.found: list[Finding] = []
        """Findings of a scan of the suspect, if the method `scans`; set after construction."""
        self.differences: list[Difference] = []
        """Comparisons of the suspect with a reference, if the method makes them."""
        self.unlearned = False
        """Whether training to unlearn these differences was completed."""

    def prepare(self) -> None:
        """Called before training, with everything on the device."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, for a method that trains."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        """None for a method that does not train."""
        return None

    def finish(self) -> None:
        """Called after training: make the student the result."""

    def describe(self) -> Description:
        """Tables and sentences for the report; empty if there are none."""
        return ()

    def epochs_of(self, images: int) -> int:
        """Number of epochs for a number of images, if the user gives none; by default `epochs`."""
        return self.epochs

    def within(self, name: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
        """Check an option of the method, by its name, as `bdclean.errors.within` does."""
        errors.within(f"method.{name}", value, low, high, above)

    @property
    def rate_option(self) -> str:
        """The option with the learning rate of the training."""
        return "lr"

    @property
    def progress(self) -> float:
        """From 0 in the first epoch to 1 in the last."""
        done, last = (epoch - self.first_epoch for epoch in (self.current_epoch, (self.trainer.max_epochs or 1) - 1))
        return done / max(1, last)

    def supervise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1], and targets: the suspect's probabilities (N, classes), or labels (N,)."""
        if self.supervision == "labels":
            assert batch.targets is not None
            return batch.images, batch.targets
        return batch.images, self.teach(batch.images).softmax(1)

    def batches(self, choosing: bool = False) -> Iterator[Batch]:
        """The defender's images without augmentation, on the device, in order, in each process.

        Args:
            choosing: Whether the selection images, which are not trained on, or the training images.
        """
        for batch in self.defence.defender_dataloader(choosing):
            converted = self.trainer.precision_plugin.convert_input(batch)
            yield self.trainer.strategy.batch_to_device(converted, self.device)

    def images(self, choosing: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and targets, as `supervise` returns them, of `batches`."""
        return map(self.supervise, self.batches(choosing))

    @torch.no_grad()
    def change(self, changes: Mapping[str, Tensor]) -> None:
        """Give parameters and buffers other values, in place."""
        values = dict(self.named_parameters()) | dict(self.named_buffers())
        for name, value in changes.items():
            values[name].copy_(value)

    def teach(self, images: Tensor) -> Tensor:
        """The suspect's logits of a batch of images in [0, 1], without a gradient."""
        with torch.no_grad():
            return self.teach_through(images)

    def teach_through(self, images: Tensor) -> Tensor:
        """The suspect's logits of a batch of images in [0, 1], with a gradient for the images."""
        return cast(Tensor, self.quick(images)).to(images.dtype)

    def on_fit_start(self) -> None:
        """Called by Lightning."""
        self.prepare()

    def on_train_start(self) -> None:
        """Called by Lightning, after the optimisers are made."""
        self.initial = initial_values(self, self.trainer.optimizers, "network.")

    def on_divergence(self, loss: float) -> None:
        """Restart the training at a quarter of the learning rate, with the same number of epochs.

        Raises:
            InputError: If the training has diverged too often.
        """
        self.divergences += 1
        if self.divergences > MAX_DIVERGENCES:
            raise untrainable(type(self), self.rate_option, self.options().get(self.rate_option), self.divergences)
        say(
            f"The loss became {loss} in epoch {self.current_epoch}: training restarts at a quarter of the learning "
            "rate."
        )
        self.restart(RATE_FACTOR)
        rewind(self.trainer.lr_scheduler_configs)
        done = self.current_epoch + 1
        self.trainer.fit_loop.max_epochs = done + (self.trainer.max_epochs or 0) - self.first_epoch
        self.first_epoch = done

    def restart(self, factor: float) -> None:
        """Restore the parameters and buffers from before the training, and multiply all learning rates by a factor."""
        self.change(self.initial)
        scale_rates(self.trainer.optimizers, self.trainer.lr_scheduler_configs, factor)

    def on_train_end(self) -> None:
        """Called by Lightning."""
        self.initial = {}
        self.finish()

    def train(self, mode: bool = True) -> Cleanser:
        """Set the student's mode; the teacher stays in eval mode."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
            self.quick.eval()
            self.set_mode(mode)
        return self

    def set_mode(self, training: bool) -> None:
        """Set the student to train or eval mode, except for parts that stay in eval mode."""
        self.network.train(training and not self.freezes_batch_norm)
        if not self.uses_dropout:
            for module in self.network.modules():
                if isinstance(module, _DropoutNd):
                    module.eval()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        logits = super().validation_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._compare(batch, logits, "val")
        return logits

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        logits = super().test_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._compare(batch, logits, "test")
        return logits

    def on_test_epoch_end(self) -> None:
        """Keep the counts of predictions: rows are the suspect's classes, columns the student's."""
        super().on_test_epoch_end()
        if found := self.comparison.moved():
            self.moved, self.harm = found

    def counted(self) -> dict[str, Share | None]:
        return super().counted() | {"agreement": self.comparison.share}

    def _compare(self, batch: Batch, logits: Tensor | None, stage: str) -> None:
        """Count and log the agreement of student and suspect on a batch, given the student's logits if known."""
        images = batch.images
        with self._exact():
            student = self(images) if logits is None else logits
            with torch.no_grad():
                teacher = self.teacher(self.normalize(images)).to(images.dtype)
        self.comparison.update(stage, student, teacher)
        agreement = self.comparison.agreement(stage)
        self.log(f"{stage}/agreement", agreement, on_step=False, on_epoch=True, add_dataloader_idx=False)
