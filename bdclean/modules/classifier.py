"""Base class of all classifiers: a network with its normalisation, evaluated on clean and triggered images."""

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
from bdclean.modules.judging import Judging
from bdclean.modules.weights import load_weights
from bdclean.networks import Normalize, Stem, check_finite, check_trainable, noise, read_logits, renewed
from bdclean.training import sgd


class Classifier(LightningModule):
    """A network and its normalisation, evaluated by ACC, ASR and RA.

    Its `state_dict` is that of the network, without a prefix, so that the weights load into the bare architecture.

    Args:
        network: From normalised images (N, C, image_size, image_size) to logits, or to any output from which
            `read_logits` can read logits. It is changed to return logits.
        num_classes: Width of its outputs: the number of classes, or 1 if a single logit separates two classes.
        image_size: Height and width of its images, in pixels.
        mean: Subtracted from each channel of an image in [0, 1]; a single number converts images to grey.
        std: Divides each channel after `mean` is subtracted.
        arch: Name of the network for `build_network`; a checkpoint with this name needs no options to be read.
        stem: First layers of a torchvision network, for `build_network`.
        arch_kwargs: Arguments of the architecture, for `build_network`.

    Attributes:
        num_classes: Number of classes.
        outputs: The kind of outputs that the network had originally.
        origin: The checkpoint of the weights; None if they come from memory.
        class_names: Names of the classes; empty if unknown.
        prefix: Prefix of the names of the tensors in that checkpoint.
    """

    network: nn.Module
    option_group = "model."
    """Prefix of the names of its options, for messages."""

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
        """The constructor's arguments that are plain values, without those that describe the network."""
        parts = [part for part in type(self).mro() if issubclass(part, Classifier)]
        names = dict.fromkeys(name for part in parts for name in inspect.signature(part).parameters)
        values = {name: getattr(self, name, None) for name in names if name not in self.hparams}
        plain = (bool, int, float, str, list, tuple)
        return {name: value for name, value in values.items() if isinstance(value, plain)}

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images in [0, 1] to (N, classes) logits."""
        logits: Tensor = self.network(self.normalize(images))
        # Losses subtract logits, so reduced precision would add a rounding error.
        return logits.to(images.dtype)

    def untrained(self) -> nn.Module:
        """A copy with re-initialised weights and the same normalisation: from images in [0, 1] to logits."""
        return renewed(nn.Sequential(self.normalize, self.network)).train()

    # State

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # of its overloads
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.network.load_state_dict(state_dict, strict, assign)

    def load(self, checkpoint: Checkpoint, parameter: str) -> None:
        """Load the weights of a checkpoint.

        Args:
            checkpoint: The checkpoint.
            parameter: The parameter that named the checkpoint, for messages.

        Raises:
            InputError: If the weights do not fit this network, or the network outputs nan or inf with them; the message
                names the tensors that differ, or the part that outputs nan or inf.
        """
        option = Given(parameter, checkpoint.path)
        self.prefix = load_weights(self.network, self.hparams["arch"], self.num_classes, checkpoint, option)
        self.origin, self.class_names = checkpoint, checkpoint.class_names
        check_finite(self, noise(3, self.image_size), option)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning: mark the checkpoint as bdclean's, whose metadata is read and not only its weights."""
        checkpoint[MARK] = __version__

    # Evaluation

    def setup(self, stage: str) -> None:
        """Called by Lightning."""
        self.train_loss.reset()  # an interrupted training leaves values in it, and the next would not be logged

    def check(self, classes: int | None, numbered: bool, size: int) -> None:
        """Check that images fit the network.

        Args:
            classes: Number of classes of the images; None if they have no labels.
            numbered: Whether labels are class numbers of which some may be missing.
            size: Height and width of the images, in pixels.

        Raises:
            InputError: If the images have more classes than the network, or another size.
        """
        if classes is not None and (classes > self.num_classes or (classes < self.num_classes and not numbered)):
            hint = f"the labelled images have {classes} classes; {Given('data.unlabeled')} takes images without labels"
            raise InputError("model.num_classes", self.num_classes, hint)
        if size != self.image_size:
            raise InputError("data.image_size", size, f"the network takes images of {self.image_size} pixels")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Update the figures with a batch, and return its logits; None for images without labels."""
        if batch.labels is None:
            return None
        return self._evaluate("val", dataloader_idx, batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Update the figures with a batch, and return its logits; None for images without labels."""
        if batch.labels is None:
            return None
        return self._evaluate("test", dataloader_idx, batch)

    def on_test_epoch_end(self) -> None:
        """Called by Lightning: store the confusion matrices, true classes in rows and predicted classes in columns."""
        self.confusions |= self.judging.confusions()

    def counted(self) -> dict[str, Share | None]:
        """Image counts of the figures of the last test, by name."""
        return self.judging.counted()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities of the classes, (N, classes)."""
        with self._exact():
            return cast(Tensor, self(batch.images)).softmax(1)

    def _exact(self) -> torch.autocast:
        """Context in which figures are computed: without autocast, so that training precision does not affect them."""
        return torch.autocast(self.device.type, enabled=False)

    def _evaluate(self, stage: str, part: int, batch: Batch) -> Tensor:
        with self._exact():
            logits: Tensor = self(batch.images)
        metrics = self.judging.update(stage, part, logits, batch)
        # With dataloader_idx, Lightning would append the number of the loader to the names.
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=stage == "val", add_dataloader_idx=False)
        return logits

    # Training

    def log_loss(self, loss: Tensor, images: Tensor) -> None:
        """Log the training loss, averaged over the epoch; this synchronises with the device once per epoch."""
        first = not self.train_loss.update_called
        self.train_loss.update(loss, len(images))
        if first:
            # One call per epoch registers the metric; a call in each step takes as long as the optimiser.
            self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: check that the loss is finite."""
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not loss.isfinite():
            self.on_divergence(loss.item())

    def on_divergence(self, loss: float) -> None:
        """Called at the end of an epoch whose mean loss is infinite or nan.

        Raises:
            InputError: Always; the user has to choose another learning rate.
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
        """SGD and a schedule over the whole training, by default for all parameters of the network.

        Raises:
            InputError: If `lr`, `momentum` or `weight_decay` is out of range.
        """
        if lr <= 0 or momentum < 0 or weight_decay < 0:
            group = self.option_group
            others = Given(f"{group}momentum", momentum), Given(f"{group}weight_decay", weight_decay)
            raise InputError(f"{group}lr", lr, "the first must be above 0, the others not below", *others)
        trained = self.network.parameters() if parameters is None else parameters
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimizer, scheduler = sgd(trained, lr, momentum, weight_decay, schedule, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
