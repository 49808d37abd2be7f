"""The base of everything that classifies: a network of images in [0, 1], and how it is judged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from bdclean import InputError
from bdclean.metrics import Accuracy, AttackSuccessRate, RobustAccuracy
from bdclean.models import Normalize, build_network

PARTS = ("clean", "triggered")
"""What the validation and test loaders hold, in their order."""
CONFUSION_CLASSES = 1000
"""No confusion matrix is kept of more classes."""


class Classifier(LightningModule):
    """A network and its normalisation, judged by ACC, ASR and RA.

    Its `state_dict` is the network's own, without a prefix: what a checkpoint holds loads into the bare architecture.

    Args:
        arch: Name of the network: resnet18, preact_resnet18, resnet20, wrn_16_1, vgg11_bn, mobilenet_v2, or any other
            classification network of torchvision.
        num_classes: How many classes it tells apart.
        image_size: Height and width of its images, in pixels.
        mean: What is subtracted from each channel of an image in [0, 1].
        std: What each channel is divided by after that.

    Raises:
        InputError: If no such network can be built.
    """

    network: nn.Module
    lr_option = "--model.lr"
    """The option that sets the learning rate, for messages."""

    def __init__(
        self,
        arch: str = "resnet20",
        num_classes: int = 10,
        image_size: int = 32,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"--model.num_classes {num_classes}: must be at least 2")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise InputError(f"--model.mean {mean} --model.std {std}: three numbers each, and no std of 0 or less")
        self.description: dict[str, Any] = {
            "arch": arch,
            "num_classes": num_classes,
            "image_size": image_size,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
        }
        self.save_hyperparameters(self.description, logger=False)
        self.num_classes = num_classes
        self.image_size = image_size
        self.normalize = Normalize(mean, std)
        # Twice as fast as the default layout on CPUs, and on GPUs at reduced precision.
        self.network = build_network(arch, num_classes, image_size).to(memory_format=torch.channels_last)
        parts = [
            MetricCollection({"acc": Accuracy()}),
            MetricCollection({"asr": AttackSuccessRate(), "ra": RobustAccuracy()}),
        ]
        self.val_metrics = nn.ModuleList(part.clone(prefix="val/") for part in parts)
        self.test_metrics = nn.ModuleList(part.clone(prefix="test/") for part in parts)
        matrices = len(parts) if num_classes <= CONFUSION_CLASSES else 0
        self.test_confusion = nn.ModuleList(MulticlassConfusionMatrix(num_classes) for _ in range(matrices))
        self.confusions: dict[str, Tensor] = {}

    def options(self) -> dict[str, Any]:
        """The constructor's arguments that are plain values, for the log."""
        values = {name: getattr(self, name, None) for name in inspect.signature(type(self)).parameters}
        return self.description | {
            name: value for name, value in values.items() if isinstance(value, (bool, int, float, str, list, tuple))
        }

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images in [0, 1] to (N, classes) logits."""
        return self.network(self.normalize(images))

    # The state is the network's

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # of its overloads
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.network.load_state_dict(state_dict, strict, assign)

    def load(self, weights: Mapping[str, Tensor], option: str) -> None:
        """Take the weights of a checkpoint.

        Args:
            weights: The network's `state_dict`.
            option: The option that named the checkpoint, for the message.

        Raises:
            InputError: If they are not those of this network; the message says what differs.
        """
        own = self.network.state_dict()
        differences = [f"missing {name}" for name in own if name not in weights]
        differences += [f"surplus {name}" for name in weights if name not in own]
        differences += [
            f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
            for name, value in own.items()
            if name in weights and weights[name].shape != value.shape
        ]
        if differences:
            more = f" and {len(differences) - 10} more" if len(differences) > 10 else ""
            raise InputError(
                f"{option}: does not fit {self.description['arch']} with {self.num_classes} classes: "
                f"{', '.join(differences[:10])}{more}"
            )
        self.network.load_state_dict(weights)

    # How it is judged

    def setup(self, stage: str) -> None:
        """Check that the data are of the kind that the network was made for."""
        data = getattr(self.trainer, "datamodule", None)
        classes, size = getattr(data, "num_classes", None), getattr(data, "image_size", None)
        if classes is not None and classes != self.num_classes:
            raise InputError(f"--model.num_classes {self.num_classes}: the labelled images have {classes} classes")
        if size is not None and size != self.image_size:
            raise InputError(f"--data.image_size {size}: the network takes images of {self.image_size} pixels")

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._judge(self.val_metrics[dataloader_idx], batch, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        logits = self._judge(self.test_metrics[dataloader_idx], batch)
        if self.test_confusion:
            cast(Metric, self.test_confusion[dataloader_idx]).update(logits, batch[2])

    def on_test_epoch_end(self) -> None:
        """Keep the confusion matrices, rows true classes and columns predicted ones."""
        for part, module in zip(PARTS, self.test_confusion, strict=False):
            matrix = cast(Metric, module)
            if matrix.update_count:
                self.confusions[part] = matrix.compute().cpu()
                matrix.reset()

    def predict_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities of the classes, (N, classes)."""
        return self(batch).softmax(1)

    def _judge(self, module: nn.Module, batch: tuple[Tensor, Tensor, Tensor], prog_bar: bool = False) -> Tensor:
        images, targets, labels = batch
        logits: Tensor = self(images)
        metrics = cast(MetricCollection, module)
        metrics.update(logits, targets, labels)
        # With dataloader_idx Lightning would name the figures after loaders.
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=prog_bar, add_dataloader_idx=False)
        return logits

    # What training shares

    def log_loss(self, loss: Tensor, images: Tensor) -> None:
        """Log the training loss, averaged over the epoch: nothing waits for the device before its end."""
        size = len(images)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)

    def on_train_epoch_end(self) -> None:
        """Stop where the loss is no number any more.

        Raises:
            InputError: If it is infinite or not a number.
        """
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not loss.isfinite():
            raise InputError(f"{self.lr_option}: too high, the loss became {loss.item()} in epoch {self.current_epoch}")

    def sgd(
        self, lr: float, momentum: float, weight_decay: float, schedule: Callable[[float], float]
    ) -> OptimizerLRScheduler:
        """SGD whose learning rate follows a schedule, step by step.

        Args:
            lr: Highest learning rate.
            momentum: Share of the last step that is kept.
            weight_decay: Strength of the L2 penalty.
            schedule: From the share of the training that is done, in [0, 1], to a factor of `lr`.
        """
        if lr <= 0 or momentum < 0 or weight_decay < 0:
            group = self.lr_option.removesuffix("lr")
            raise InputError(
                f"{group}lr {lr} {group}momentum {momentum} {group}weight_decay {weight_decay}: "
                "the first must be above 0, the others not below"
            )
        optimizer = torch.optim.SGD(self.network.parameters(), lr, momentum, weight_decay=weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(min(1.0, step / steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
