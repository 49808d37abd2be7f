"""Backdoor cleansing with unlabeled data: re-initialisation, then distillation from the suspect."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from bdclean.cleansing.base import Cleanser
from bdclean.cleansing.reinitialise import Shares, run_seed
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.tables import Description
from bdclean.training import cosine, kd_loss


class DistillCleanseModule(Cleanser):
    """Re-initialises random weights of the suspect, and lets it learn again from its own answers on clean images.

    The defaults are the paper's, which has 5,000 images in batches of 256.

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
        seed: Fixes which weights are re-initialised, and to what; by default that of the whole run.

    Raises:
        InputError: If the ratios are no shares, or not one for each stage.
    """

    epochs = 100

    def __init__(
        self,
        suspect: Classifier,
        ratios: float | Sequence[float] | None = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        temperature: tuple[float, float] = (1.0, 4.0),
        seed: int | None = None,
    ) -> None:
        super().__init__(suspect)
        self.shares = Shares(suspect, suspect.image_size, ratios, type(self).__name__)
        self.ratios = self.shares.ratios
        if min(temperature) <= 0:
            raise InputError("method.temperature", temperature, "must be above 0")
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.seed = run_seed(seed)
        self.shares.reinitialise(self, self.seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch.images
        first, last = self.temperature
        answers = self.teach(images)  # before the student's, whose activations the backward pass needs at once
        loss = kd_loss(self(images), answers, first + self.progress * (last - first))
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, cosine)

    def describe(self) -> Description:
        return self.shares.describe()


LARGEST_GRADIENT = 5.0
"""Euclidean norm over all parameters; networks with batch norms have some tenths."""


class StrongDistillCleanseModule(DistillCleanseModule):
    """The same with settings for networks of any size: more is re-initialised, everywhere, and learnt again faster.

    The gradient of a step has a bounded norm, without which networks without norm layers would be ruined.

    The paper's ratios leave the backdoor in small networks. These were chosen on two development suspects, one on the
    embedded images and one on CIFAR-10, by looking at ASR: what they are worth elsewhere has to be measured there.
    Meant for batches of 128.

    Args:
        suspect: The network to cleanse.
        ratios: As in DistillCleanseModule.
        lr: As in DistillCleanseModule.
        momentum: As in DistillCleanseModule.
        weight_decay: As in DistillCleanseModule.
        temperature: As in DistillCleanseModule.
        seed: As in DistillCleanseModule.
    """

    epochs = 12

    def __init__(
        self,
        suspect: Classifier,
        ratios: float | Sequence[float] | None = 0.2,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        temperature: tuple[float, float] = (1.0, 4.0),
        seed: int | None = None,
    ) -> None:
        super().__init__(suspect, ratios, lr, momentum, weight_decay, temperature, seed)

    @property
    def largest_gradient(self) -> float:
        """The norm to which the gradient of a step is clipped, if the Trainer is not asked for another."""
        return LARGEST_GRADIENT

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Called by Lightning, with what the Trainer was asked for."""
        bound = self.largest_gradient if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, bound, gradient_clip_algorithm or "norm")
