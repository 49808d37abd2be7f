"""Two controls, for the effect of each half of the paper's method by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.distill import DistillCleanseModule
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.reinitialise import Shares, run_seed
from bdclean.modules import Classifier
from bdclean.tables import Description


class Distill(DistillCleanseModule):
    """Control: distils the suspect into a copy of itself, without re-initialisation.

    The same as DistillCleanseModule with ratios of 0.

    Source: the control of Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        lr: Highest learning rate of SGD; it falls to 0 along a cosine. The default is the paper's.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD (L2 penalty).
        temperature: Temperature of the distillation in the first and in the last epoch; it rises linearly in between.
    """

    def __init__(
        self,
        suspect: Classifier,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        temperature: tuple[float, float] = (1.0, 4.0),
    ) -> None:
        super().__init__(suspect, 0.0, lr, momentum, weight_decay, temperature)

    def describe(self) -> Description:
        return ()


class Reinitialise(FineTune):
    """Control: re-initialises weights and trains with labels, without distillation.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of the training: `labels`, the true labels; `teacher`, the suspect's predicted
            probabilities.
        ratios: Share of the weights that are re-initialised: one number for each stage (stem, stages, head), or one
            for all. By default 0.01 for the stem, from 0.01 to 0.27 by a constant factor over the stages, and 0.10 for
            the head.
        seed: Seed of which weights are re-initialised and of their new values; by default --seed_everything.
        **options: Options of FineTune.
    """

    relative_time = 1.0

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "labels",
        ratios: float | Sequence[float] | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, **options)
        self.shares = Shares(suspect, suspect.image_size, ratios, type(self).__name__)
        self.ratios = self.shares.ratios
        self.seed = run_seed(seed)
        self.shares.reinitialise(self, self.seed)

    def describe(self) -> Description:
        return self.shares.describe()
