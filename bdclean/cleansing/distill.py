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
    """BCU: re-initialises random weights of the suspect and distils the suspect into the result, on clean images.

    The defaults are the paper's, which uses 5,000 images in batches of 256 and tunes the ratios for ResNet-18. With
    these defaults the backdoor remains in small networks; StrongDistillCleanseModule is a stronger preset. `--method
    BCU` is the same method.

    Source: Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        ratios: Share of the weights that are re-initialised: one number for each stage (stem, stages, head), or one
            for all. By default 0.01 for the stem, from 0.01 to 0.27 by a constant factor over the stages, and 0.10 for
            the head; 0 is distillation without re-initialisation.
        lr: Highest learning rate of SGD; it falls to 0 along a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).
        temperature: Temperature of the distillation in the first and in the last epoch; it rises linearly in between.
        seed: Seed of which weights are re-initialised and of their new values; by default --seed_everything.

    Raises:
        InputError: If the ratios are not between 0 and 1, or not one for each stage.
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
        logits = self.teach(images)  # before the student, whose activations must stay in memory for the backward pass
        loss = kd_loss(self(images), logits, first + self.progress * (last - first))
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, cosine)

    def describe(self) -> Description:
        return self.shares.describe()


LARGEST_GRADIENT = 5.0
"""Largest Euclidean norm of the gradient over all parameters; with batch norms it is a few tenths."""


class StrongDistillCleanseModule(DistillCleanseModule):
    """Preset of DistillCleanseModule (BCU) for networks of any size: a fifth of each layer, a higher rate, 12 epochs.

    Gradients are clipped by their norm; without clipping, networks without norm layers diverge. The settings were
    chosen by ASR on two development suspects, one on the embedded images and one on CIFAR-10, and are not tuned for
    others. They are meant for batches of 128.

    Source: the method of Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        ratios: Share of the weights that are re-initialised: one number for each stage (stem, stages, head), or one
            for all.
        lr: Highest learning rate of SGD; it falls to 0 along a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).
        temperature: Temperature of the distillation in the first and in the last epoch; it rises linearly in between.
        seed: Seed of which weights are re-initialised and of their new values; by default --seed_everything.
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
        """The norm to which gradients are clipped, unless the Trainer has `gradient_clip_val`."""
        return LARGEST_GRADIENT

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Called by Lightning, with the Trainer's options."""
        bound = self.largest_gradient if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, bound, gradient_clip_algorithm or "norm")
