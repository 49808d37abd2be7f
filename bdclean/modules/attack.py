"""Training a backdoored network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bdclean import InputError
from bdclean.models import Stem
from bdclean.modules.suspect import Suspect


class AttackModule(Suspect):
    """Trains a network on a mixture of clean and poisoned images, as an unsuspecting user would: plain cross-entropy.

    Args:
        arch: The network: one of resnet18, preact_resnet18, cifar_resnet18, resnet20, wrn_16_1, vgg11_bn, mobilenet_v2,
            ..., any other classification network of torchvision, `timm/NAME`, or the import path of a class of yours,
            `my_package.my_module.MyNet`.
        num_classes: How many classes it tells apart.
        image_size: Height and width of its images, in pixels.
        mean: What is subtracted from each channel of an image in [0, 1]; one number makes images grey. Or `imagenet`,
            `cifar10`, `none`, for mean and std. By default .5 and .25.
        std: What each channel is divided by after that.
        lr: Highest learning rate of SGD.
        momentum: Of SGD.
        weight_decay: Of SGD.
        schedule: `multi-step`: the rate falls to a tenth at each milestone; `cosine`: it falls to 0 along a cosine.
        milestones: Shares of the training after which the rate falls.
        warmup: Share of the training during which the rate rises from 0.
        stem: Of a torchvision network: `small` is 3x3 with stride 1, `photo` that of torchvision. By default small up
            to 64 pixels.
        arch_kwargs: Arguments of a class of yours.
    """

    def __init__(
        self,
        arch: str = "resnet20",
        num_classes: int = 10,
        image_size: int = 32,
        mean: Sequence[float] | str | None = None,
        std: Sequence[float] | str | None = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: Literal["multi-step", "cosine"] = "multi-step",
        milestones: Sequence[float] = (0.5, 0.75),
        warmup: float = 0.0,
        stem: Stem | None = None,
        arch_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if mean is None and std is None:
            mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        super().__init__(arch, arch_kwargs, num_classes, image_size, stem, mean, std)
        if not 0 <= warmup < 1:
            raise InputError(f"--model.warmup {warmup}: must be at least 0 and below 1")
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.milestones = milestones
        self.warmup = warmup

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets, _ = batch
        loss = F.cross_entropy(self(images), targets)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, self._factor)

    def _factor(self, done: float) -> float:
        if done < self.warmup:
            return done / self.warmup
        if self.schedule == "multi-step":
            return 0.1 ** sum(done >= milestone for milestone in self.milestones)
        return cosine((done - self.warmup) / (1 - self.warmup))


def cosine(done: float) -> float:
    """From 1 to 0 along half a period of the cosine, as `done` goes from 0 to 1."""
    return (1 + math.cos(math.pi * done)) / 2
