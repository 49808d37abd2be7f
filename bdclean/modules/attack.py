"""Train a backdoored network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from bdclean.attacks import Attack
from bdclean.data.augment import Augmentation
from bdclean.data.batch import Batch
from bdclean.data.notices import say
from bdclean.data.poisoning import poison_in_step
from bdclean.errors import Given, InputError
from bdclean.modules.starting import PARAMETER, Start, start_from
from bdclean.modules.suspect import Suspect
from bdclean.networks import Moments, Stem, check_finite, noise
from bdclean.training import cosine


class AttackModule(Suspect):
    """Trains a network on a mixture of clean and poisoned images, with plain cross-entropy.

    Attacks that act in the training step poison their images there, and are trained with an optimiser of their own.

    Args:
        arch: Architecture: resnet18, preact_resnet18, cifar_resnet18, resnet20, wrn_16_1, vgg11_bn, mobilenet_v2, ...,
            any other classification network of torchvision, `timm/NAME`, or the import path of your own class,
            `my_package.my_module.MyNet`. By default the architecture of `weights`, or else resnet20.
        num_classes: Number of classes.
        image_size: Height and width of the images, in pixels.
        mean: Subtracted from the channels of an image in [0, 1]: one number for all channels, or one for each. Or a
            name for mean and std: `imagenet`, `cifar10`, `cifar100`, `gtsrb`, `mnist`, `clip`, `half`, `byte`, `none`.
            By default the values in `weights` if the file has them, or else 0.5 with a std of 0.25.
        std: Divides the channels after `mean` is subtracted: one number for all channels, or one for each. By
            default the std that belongs to `mean`, if a name or the checkpoint sets both.
        lr: Highest learning rate of SGD.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).
        schedule: `multi-step`: the rate falls to a tenth at each milestone; `cosine`: it falls to 0 along a cosine.
        milestones: Shares of the training after which the rate falls (multi-step).
        warmup: Share of the training during which the rate rises from 0.
        stem: First layers of a torchvision network: `small` is a 3x3 convolution with stride 1, `photo` torchvision's.
            By default `small` up to 64 pixels.
        arch_kwargs: Arguments of your own class; by default none.
        weights: A checkpoint to start from, in any form that `bdclean cleanse --ckpt` takes: a pretrained network, for
            example. If it has another number of classes, its last layer starts from random weights. By default all
            weights start at random.

    Raises:
        InputError: If an option is out of range, or `weights` is not a network of these options.
    """

    def __init__(
        self,
        arch: str | None = None,
        num_classes: int = 10,
        image_size: int = 32,
        mean: Moments = None,
        std: Moments = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: Literal["multi-step", "cosine"] = "multi-step",
        milestones: Sequence[float] = (0.5, 0.75),
        warmup: float = 0.0,
        stem: Stem | None = None,
        arch_kwargs: dict[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        given: dict[str, Any] = {"arch": arch, "arch_kwargs": arch_kwargs, "stem": stem, "mean": mean, "std": std}
        start = None if weights is None else start_from(weights, given, image_size)
        if start is not None:
            given = {name: start.arguments.get(name) for name in given}
        if given["mean"] is None and given["std"] is None:
            given |= {"mean": 0.5, "std": 0.25}
        given["arch"] = given["arch"] or "resnet20"
        super().__init__(**given, num_classes=num_classes, image_size=image_size)
        self.weights = weights
        if start is not None:
            self._start(start)
        if not 0 <= warmup < 1:
            raise InputError("model.warmup", warmup, "must be at least 0 and below 1")
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.milestones = milestones
        self.warmup = warmup
        self.attack: Attack | None = None
        self.after_epoch: Callable[[nn.Module], None] | None = None
        self.augment: Augmentation | None = None
        self.trigger_optimizer: Optimizer | None = None
        self._warmup_steps, self._learning_steps = 0.0, math.inf
        self._resumed: dict[str, Any] | None = None

    def _start(self, start: Start) -> None:
        """Load pretrained weights, and report which tensors start from random weights."""
        new = start.load_into(self.network)
        check_finite(self, noise(len(self.hparams["mean"]), self.image_size), Given(PARAMETER, self.weights))
        if new:
            classes = f"{start.num_classes} classes there, {self.num_classes} here"
            say(f"{Given(PARAMETER, self.weights)}: {', '.join(new)} start from random weights ({classes})")

    def poison_with(self, attack: Attack | None, augment: Augmentation) -> None:
        """Set the attack of the training step; called before training.

        Args:
            attack: The attack. If it poisons in the training step, it has to be on the network's device.
            augment: Crops and flips, applied after the trigger.
        """
        poisons = attack is not None and attack.poison_rate > 0
        self.attack = attack if attack is not None and attack.poisons_each_step and poisons else None
        # A function, not the attack: as a part of this module it would be moved to the network's device.
        self.after_epoch = attack.after_epoch if attack is not None and poisons else None
        self.augment = augment

    def setup(self, stage: str) -> None:
        """Called by Lightning: let the attack set up its auxiliary network."""
        super().setup(stage)
        if self.attack is None:
            return
        precision = self.trainer.precision
        if (self.attack.trains_trigger or self.attack.has_auxiliary) and precision not in ("32-true", "bf16-mixed"):
            name = type(self.attack).__name__
            raise InputError("trainer.precision", precision, f"{name} supports 32-true and bf16-mixed")
        if stage == "fit":
            self.attack.setup_auxiliary(self.untrained)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert batch.targets is not None
        images = batch.images
        penalty: Tensor | float = 0.0
        if self.attack is not None and self.augment is not None and batch.marks is not None:
            images = poison_in_step(batch, self.attack, self.augment)
            penalty = self._penalty(self.attack, batch)
        own = (
            F.cross_entropy(self(images), batch.targets)
            if self.attack is None
            else self.attack.loss(images, batch.targets, self)
        )
        loss = own + penalty
        self.log_loss(loss, images)
        return loss

    def on_train_epoch_end(self) -> None:
        """Let the attack change the network."""
        super().on_train_epoch_end()
        if self.after_epoch is not None:
            self.after_epoch(self.network)
            if self.trainer.world_size > 1:
                # Batch norm statistics differ between processes, and with them what an attack may make of them.
                for parameter in self.network.parameters():
                    distributed.broadcast(parameter.data, 0)

    def _penalty(self, attack: Attack, batch: Batch) -> Tensor | float:
        """The loss term of the attack for a batch."""
        assert batch.marks is not None
        assert batch.targets is not None
        # DDP needs a gradient of every parameter, even in a process whose share of the batch has no poisoned image.
        penalty: Tensor | float = sum(
            0 * parameter.sum() for parameter in attack.parameters() if parameter.requires_grad
        )
        if len(batch.marks.places) and self._warmup_steps <= self.trainer.global_step < self._learning_steps:
            penalty = penalty + attack.penalty(batch.images, batch.marks.places, batch.targets, self)
        return penalty

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called by Lightning: step the trigger's optimiser too."""
        if self.attack is None or self.trigger_optimizer is None:
            return
        if self.trainer.global_step < self._learning_steps:
            self.trigger_optimizer.step()
        self.trigger_optimizer.zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning: save the state of the trigger's optimiser, to resume an interrupted run."""
        super().on_save_checkpoint(checkpoint)
        if self.trigger_optimizer is not None and "optimizer_states" in checkpoint:
            checkpoint["trigger_optimizer"] = self.trigger_optimizer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning when training resumes, before `configure_optimizers`."""
        self._resumed = checkpoint.get("trigger_optimizer")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        self.trigger_optimizer = None
        if self.attack is not None:
            steps = self.trainer.estimated_stepping_batches
            self._warmup_steps = self.attack.warmup_fraction * steps
            if self.attack.trains_trigger:
                self.trigger_optimizer = self.attack.optimizer()
                self._learning_steps = self.attack.trigger_training_fraction * steps
                if self._resumed is not None:
                    self.trigger_optimizer.load_state_dict(self._resumed)
        return self.sgd(self.lr, self.momentum, self.weight_decay, self._factor)

    def _factor(self, done: float) -> float:
        if self.schedule == "cosine" or done < self.warmup:
            return cosine(done, self.warmup)
        return 0.1 ** sum(done >= milestone for milestone in self.milestones)
