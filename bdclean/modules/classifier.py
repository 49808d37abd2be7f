"""The base of everything that classifies: a network of images in [0, 1], and how it is judged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from bdclean import __version__
from bdclean.checkpoint import MARK, Checkpoint
from bdclean.data.batch import Batch
from bdclean.errors import Given, InputError, within
from bdclean.metrics import MeanLoss, Share
from bdclean.models import (
    Normalize,
    Stem,
    check_finite,
    check_trainable,
    noise,
    read_logits,
    renewed,
)
from bdclean.modules.judging import Judging
from bdclean.modules.weights import load_weights
from bdclean.training import sgd


class Classifier(LightningModule):
    """A network and its normalisation, judged by ACC, ASR and RA.

    Its `state_dict` is the network's own, without a prefix: what a checkpoint holds loads into the bare architecture.

    Args:
        network: From normalised images (N, C, image_size, image_size) to logits, or to anything that `read_logits`
            reads as logits; from now on it returns these.
        num_classes: Width of its outputs: how many classes it tells apart, or 1 where one number stands for two.
        image_size: Height and width of its images, in pixels.
        mean: Subtracted from each channel of an image in [0, 1]; one number makes images grey.
        std: Each channel is divided by it after that.
        arch: Name of the network, as `build_network` takes it; with it a checkpoint can be read without other options.
        stem: As in `build_network`.
        arch_kwargs: As in `build_network`.

    Attributes:
        num_classes: How many classes it tells apart.
        outputs: What the network outputs by itself.
        origin: The checkpoint that the weights come from, if they come from one.
        class_names: What the classes are called; empty if nothing says it.
        prefix: What stood before the name of each tensor there.
    """

    network: nn.Module
    option_group = "model."
    """Before the names of its options, for messages."""

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        arch: str | None = None,
        stem: Stem | None = None,
        arch_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        within("model.num_classes", num_classes, 1)
        description: dict[str, Any] = {
            "arch": arch,
            "num_classes": num_classes,
            "image_size": image_size,
            "mean": list(mean),
            "std": list(std),
            "stem": stem,
            "arch_kwargs": dict(arch_kwargs or {}) or None,
        }
        # Plain values, so that a checkpoint can be read without making objects.
        self.save_hyperparameters(description, logger=False)
        check_trainable(network)
        self.outputs = read_logits(network, noise(len(mean), image_size), num_classes)
        self.num_classes = num_classes = self.outputs.num_classes
        self.image_size = image_size
        self.origin: Checkpoint | None = None
        self.prefix = ""
        self.class_names: tuple[str, ...] = ()
        self.normalize = Normalize(mean, std)
        # Twice as fast as the default layout on CPUs, and on GPUs at reduced precision.
        self.network = network.to(memory_format=torch.channels_last)
        self.judging = Judging(num_classes)
        self.train_loss = MeanLoss()
        self.confusions: dict[str, Tensor] = {}

    def options(self) -> dict[str, Any]:
        """The constructor's arguments that are plain values, but those that say what the network is."""
        parts = [part for part in type(self).mro() if issubclass(part, Classifier)]
        names = dict.fromkeys(name for part in parts for name in inspect.signature(part).parameters)
        values = {name: getattr(self, name, None) for name in names if name not in self.hparams}
        plain = (bool, int, float, str, list, tuple)
        return {name: value for name, value in values.items() if isinstance(value, plain)}

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images in [0, 1] to (N, classes) logits."""
        logits: Tensor = self.network(self.normalize(images))
        # Losses are differences of logits: they are computed without rounding these once more.
        return logits.to(images.dtype)

    def untrained(self) -> nn.Module:
        """A copy of normalisation and network with new weights: from images in [0, 1] to logits."""
        return renewed(nn.Sequential(self.normalize, self.network)).train()

    # The state is the network's

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # of its overloads
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.network.load_state_dict(state_dict, strict, assign)

    def load(self, checkpoint: Checkpoint, parameter: str) -> None:
        """Take the weights of a checkpoint.

        Args:
            checkpoint: What was read.
            parameter: The parameter that named it, for the message.

        Raises:
            InputError: If its weights are not those of this network, or it outputs nan or inf with them; the message
                says what differs, or which part makes it so.
        """
        option = Given(parameter, checkpoint.path)
        self.prefix = load_weights(self.network, self.hparams["arch"], self.num_classes, checkpoint, option)
        self.origin, self.class_names = checkpoint, checkpoint.class_names
        check_finite(self, noise(3, self.image_size), option)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark it as ours: of nobody else's is more believed than the weights."""
        checkpoint[MARK] = __version__

    # How it is judged

    def setup(self, stage: str) -> None:
        """Called by Lightning."""
        self.train_loss.reset()  # a training that was broken off leaves it full: the next would not be logged

    def check(self, classes: int | None, numbered: bool, size: int) -> None:
        """Refuse images that do not fit.

        Args:
            classes: How many they have; None if they have no labels.
            numbered: Whether these are numbers of classes of which some may be missing.
            size: Their height and width, in pixels.

        Raises:
            InputError: If they have more classes than the network, or another size.
        """
        if classes is not None and (classes > self.num_classes or (classes < self.num_classes and not numbered)):
            raise InputError("model.num_classes", self.num_classes, f"the labelled images have {classes} classes")
        if size != self.image_size:
            raise InputError("data.image_size", size, f"the network takes images of {self.image_size} pixels")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Count a batch, and give its logits; images without labels count for nothing here."""
        if batch.labels is None:
            return None
        return self._judge("val", dataloader_idx, batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """As `validation_step`."""
        if batch.labels is None:
            return None
        return self._judge("test", dataloader_idx, batch)

    def on_test_epoch_end(self) -> None:
        """Keep the confusion matrices, rows true classes and columns predicted ones."""
        self.confusions |= self.judging.confusions()

    def counted(self) -> dict[str, Share | None]:
        """Of how many images the figures of the last test are, by their names."""
        return self.judging.counted()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities of the classes, (N, classes)."""
        with self._exact():
            return cast(Tensor, self(batch.images)).softmax(1)

    def _exact(self) -> torch.autocast:
        """Where figures are computed: they do not depend on the precision of the training."""
        return torch.autocast(self.device.type, enabled=False)

    def _judge(self, stage: str, part: int, batch: Batch) -> Tensor:
        with self._exact():
            logits: Tensor = self(batch.images)
        metrics = self.judging.update(stage, part, logits, batch)
        # With dataloader_idx Lightning would name the figures after loaders.
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=stage == "val", add_dataloader_idx=False)
        return logits

    # What training shares

    def log_loss(self, loss: Tensor, images: Tensor) -> None:
        """Log the training loss, averaged over the epoch: nothing waits for the device before its end."""
        first = not self.train_loss.update_called
        self.train_loss.update(loss, len(images))
        if first:
            # Once an epoch says it all, and in each step it would take as long as an optimiser does.
            self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: look whether the loss is still a finite number."""
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not loss.isfinite():
            self.on_divergence(loss.item())

    def on_divergence(self, loss: float) -> None:
        """Called at the end of an epoch whose mean loss is infinite or nan.

        Raises:
            InputError: Always: whoever chose the learning rate has to choose another.
        """
        rate = self.options().get("lr")
        raise InputError("model.lr", rate, f"too high, the loss became {loss} in epoch {self.current_epoch}")

    def sgd(
        self,
        lr: float,
        momentum: float,
        weight_decay: float,
        schedule: Callable[[float], float],
        parameters: ParamsT | None = None,
    ) -> OptimizerLRScheduler:
        """As `bdclean.training.sgd`, for the whole of this training; by default of the whole network.

        Raises:
            InputError: If one of the first three is out of range.
        """
        if lr <= 0 or momentum < 0 or weight_decay < 0:
            group = self.option_group
            others = Given(f"{group}momentum", momentum), Given(f"{group}weight_decay", weight_decay)
            raise InputError(f"{group}lr", lr, "the first must be above 0, the others not below", *others)
        trained = self.network.parameters() if parameters is None else parameters
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimizer, scheduler = sgd(trained, lr, momentum, weight_decay, schedule, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
