"""Backdoor cleansing with unlabeled data: re-initialisation, then distillation from the suspect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bdclean import InputError
from bdclean.cleansing.base import Cleanser
from bdclean.cleansing.reinitialise import reinitialise, stage_ratios
from bdclean.models import find_stages, weights
from bdclean.modules import Classifier
from bdclean.modules.attack import cosine


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch, without the factor T^2.

    Args:
        student: (N, C) logits.
        teacher: (N, C) logits.
        temperature: T, above 0.
    """
    answers, targets = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(answers, targets, reduction="batchmean", log_target=True)


class DistillCleanseModule(Cleanser):
    """Re-initialises random weights of the suspect, and lets it learn again from its own answers on clean images.

    The defaults are the paper's; trained for 100 epochs on 5,000 images in batches of 256.

    Source: Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        suspect: The network to cleanse.
        ratios: Share of the weights that are re-initialised: one number a stage (stem, stages, head), or one for all of
            them. By default .01 for the stem, from .01 to .27 by a constant factor over the stages, .10 for the head; 0
            is distillation without re-initialisation.
        lr: Learning rate of SGD, which falls to 0 along a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD.
        temperature: T of the distillation in the first and in the last epoch; it rises linearly.
        seed: Fixes which weights are re-initialised, and to what.

    Raises:
        InputError: If the ratios are no shares, or not one for each stage.
    """

    def __init__(
        self,
        suspect: Classifier,
        ratios: float | Sequence[float] | None = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        temperature: tuple[float, float] = (1.0, 4.0),
        seed: int = 0,
    ) -> None:
        super().__init__(suspect)
        self.layers = find_stages(suspect, suspect.image_size)
        stages = 1 + max((layer.stage for layer in self.layers), default=-1)
        if not stages:
            raise InputError("--method DistillCleanseModule: the network has no convolution or linear layer")
        if ratios is None:
            self.ratios = stage_ratios(stages)
        else:
            self.ratios = [ratios] * stages if isinstance(ratios, (int, float)) else list(ratios)
        if len(self.ratios) != stages:
            raise InputError(
                f"--method.ratios {self.ratios}: {len(self.ratios)} numbers, but the network has {stages} stages: "
                f"stem, {stages - 2} between, head"
            )
        if not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise InputError(f"--method.ratios {self.ratios}: must be between 0 and 1")
        if min(temperature) <= 0:
            raise InputError(f"--method.temperature {temperature}: must be above 0")
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.temperature = temperature
        reinitialise(
            self,
            {layer.name: self.ratios[layer.stage] for layer in self.layers},
            torch.Generator().manual_seed(seed),
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        first, last = self.temperature
        done = self.current_epoch / max(1, (self.trainer.max_epochs or 1) - 1)
        loss = kd_loss(self(batch), self.teach(batch), first + done * (last - first))
        self.log_loss(loss, batch)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, cosine)

    def describe(self) -> str:
        last = self.layers[-1].stage
        names = {0: "stem", last: "head"}
        rows = ["| layer | weights | stage | re-initialised |", "|---|---|---|---|"]
        for layer in self.layers:
            shapes = ", ".join("x".join(map(str, weight.shape)) for weight in weights(layer.module).values())
            name, stage = layer.name.removeprefix("network."), names.get(layer.stage, layer.stage)
            rows.append(f"| {name} | {shapes} | {stage} | {self.ratios[layer.stage]:.3g} |")
        return "\n".join(rows)


class StrongDistillCleanseModule(DistillCleanseModule):
    """The same with settings for networks of any size: more is re-initialised, everywhere, and learnt again faster.

    The paper's ratios leave the backdoor in small networks. These were chosen on two development suspects, one on the
    embedded images and one on CIFAR-10, by looking at ASR: what they are worth elsewhere has to be measured there.
    Meant for 12 epochs in batches of 128.

    Args:
        suspect: The network to cleanse.
        ratios: As in DistillCleanseModule.
        lr: As in DistillCleanseModule.
        momentum: As in DistillCleanseModule.
        weight_decay: As in DistillCleanseModule.
        temperature: As in DistillCleanseModule.
        seed: As in DistillCleanseModule.
    """

    def __init__(
        self,
        suspect: Classifier,
        ratios: float | Sequence[float] | None = 0.2,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        temperature: tuple[float, float] = (1.0, 4.0),
        seed: int = 0,
    ) -> None:
        super().__init__(suspect, ratios, lr, momentum, weight_decay, temperature, seed)
