"""How a student's predictions moved from the suspect's, counted batch by batch."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from bdclean.cleansing.harm import Harm, find_harm
from bdclean.metrics import Agreement, Confidence, Share
from bdclean.modules.judging import CONFUSION_CLASSES


class Comparison(nn.Module):
    """Counts on which images a student and the suspect predict the same class.

    Args:
        num_classes: Of both networks.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.agreements = nn.ModuleDict({"val": Agreement(), "test": Agreement()})
        few = num_classes <= CONFUSION_CLASSES
        self.moves = MulticlassConfusionMatrix(num_classes) if few else None
        self.confidence = Confidence(num_classes)

    def agreement(self, stage: str) -> Metric:
        """The share of the images on which both agree, of `val` or of `test`."""
        return cast(Metric, self.agreements[stage])

    @property
    def share(self) -> Share | None:
        """That of the last test, with its count."""
        return cast(Agreement, self.agreements["test"]).share

    def update(self, stage: str, student: Tensor, suspect: Tensor) -> None:
        """Count a batch: logits (N, classes) of both networks."""
        self.agreement(stage).update(student, suspect)
        if stage == "test" and self.moves is not None:
            self.moves.update(student, suspect.argmax(1))
            self.confidence.update(suspect)

    def moved(self) -> tuple[Tensor, Harm] | None:
        """What the last test counted, after which it counts anew; None if it counted nothing.

        Returns:
            (classes, classes) counts of images, rows the suspect's classes and columns the student's; what speaks
            against the student.
        """
        if self.moves is None or not self.moves.update_count:
            return None
        moved = self.moves.compute().cpu()
        harm = find_harm(moved, self.confidence.compute().cpu())
        self.moves.reset()
        self.confidence.reset()
        return moved, harm
