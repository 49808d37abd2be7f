"""Counting agreements and differences between the predictions of student and suspect, batch by batch."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from bdclean.cleansing.harm import Harm, find_harm
from bdclean.metrics import Agreement, Confidence, Share
from bdclean.modules.judging import CONFUSION_CLASSES


class Comparison(nn.Module):
    """Counts the images on which student and suspect predict the same class, and the classes of the others.

    Args:
        num_classes: Number of classes of both networks.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.agreements = nn.ModuleDict({"val": Agreement(), "test": Agreement()})
        few = num_classes <= CONFUSION_CLASSES
        self.moves = MulticlassConfusionMatrix(num_classes) if few else None
        self.confidence = Confidence(num_classes)

    def agreement(self, stage: str) -> Metric:
        """The metric of agreement for `val` or `test`."""
        return cast(Metric, self.agreements[stage])

    @property
    def share(self) -> Share | None:
        """The agreement in the last test, with its count."""
        return cast(Agreement, self.agreements["test"]).share

    def update(self, stage: str, student: Tensor, suspect: Tensor) -> None:
        """Count a batch: logits (N, classes) of both networks."""
        self.agreement(stage).update(student, suspect)
        if stage == "test" and self.moves is not None:
            self.moves.update(student, suspect.argmax(1))
            self.confidence.update(suspect)

    def moved(self) -> tuple[Tensor, Harm] | None:
        """The counts of the last test, which are then reset; None if nothing was counted.

        Returns:
            (classes, classes) counts of images, rows for the suspect's classes and columns for the student's; and the
            harm of the cleansing.
        """
        if self.moves is None or not self.moves.update_count:
            return None
        moved = self.moves.compute().cpu()
        harm = find_harm(moved, self.confidence.compute().cpu())
        self.moves.reset()
        self.confidence.reset()
        return moved, harm
