"""Two controls: what each half of the paper's method does by itself."""

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
    """Distillation alone: DistillCleanseModule without re-initialisation.

    Source: the control of Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        suspect: The network to cleanse.
        lr: As in DistillCleanseModule.
        momentum: As in DistillCleanseModule.
        weight_decay: As in DistillCleanseModule.
        temperature: As in DistillCleanseModule.
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
    """Re-initialisation, then training with labels: DistillCleanseModule without distillation.

    Args:
        suspect: The network to cleanse.
        supervision: As in FineTune; here the labels by default.
        ratios: As in DistillCleanseModule.
        seed: As in DistillCleanseModule.
        **options: As in FineTune.
    """

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
