"""How a classifier is judged: ACC, ASR and RA, and which classes it confuses."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from bdclean.data.batch import Batch
from bdclean.metrics import Accuracy, AttackSuccessRate, RobustAccuracy, Share

PARTS = ("clean", "triggered")
"""What the validation and test loaders hold, in their order."""
CONFUSION_CLASSES = 1000
"""No confusion matrix is kept of more classes."""


class Judging(nn.Module):
    """Counts of the validation and of the test, for clean and for triggered images.

    Args:
        num_classes: Of the network.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        parts = [
            MetricCollection({"acc": Accuracy()}),
            # Not in groups: torchmetrics takes figures for one and the same that are equal after a batch, as 0 and 0.
            MetricCollection({"asr": AttackSuccessRate(), "ra": RobustAccuracy()}, compute_groups=False),
        ]
        self.val = nn.ModuleList(part.clone(prefix="val/") for part in parts)
        self.test = nn.ModuleList(part.clone(prefix="test/") for part in parts)
        matrices = len(parts) if num_classes <= CONFUSION_CLASSES else 0
        self.matrices = nn.ModuleList(MulticlassConfusionMatrix(num_classes) for _ in range(matrices))

    def update(self, stage: str, part: int, logits: Tensor, batch: Batch) -> MetricCollection:
        """Count a batch.

        Args:
            stage: `val` or `test`.
            part: Number of the loader, as in `PARTS`.
            logits: (N, classes) of the batch.
            batch: With labels.

        Returns:
            The figures that it counts for, to be logged.
        """
        metrics = cast(MetricCollection, (self.val if stage == "val" else self.test)[part])
        metrics.update(logits, batch.targets, batch.labels)
        if stage == "test" and self.matrices:
            cast(Metric, self.matrices[part]).update(logits, batch.labels)
        return metrics

    def counted(self) -> dict[str, Share | None]:
        """Of how many images the figures of the last test are, by their names."""
        metrics = (one for part in self.test for one in cast(MetricCollection, part).items(keep_base=True))
        return {name: cast(Any, metric).share for name, metric in metrics}

    def confusions(self) -> dict[str, Tensor]:
        """The confusion matrices of the test that ends, which are counted anew after it.

        Returns:
            For each part that had images, (classes, classes) counts: rows true classes and columns predicted ones.
        """
        found = {}
        for part, module in zip(PARTS, self.matrices, strict=False):
            matrix = cast(Metric, module)
            if matrix.update_count:
                found[part] = matrix.compute().cpu()
                matrix.reset()
        return found
