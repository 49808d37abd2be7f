"""ACC, ASR, RA and confusion matrices of a classifier."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from bdclean.data.batch import Batch
from bdclean.metrics import Accuracy, AttackSuccessRate, RobustAccuracy, Share

PARTS = ("clean", "triggered")
"""Images of the validation and test loaders, in their order."""
CONFUSION_CLASSES = 1000
"""Maximum number of classes for which confusion matrices are computed."""


class Judging(nn.Module):
    """Metrics of validation and test, on clean and on triggered images.

    Args:
        num_classes: Number of classes of the network.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        parts = [
            MetricCollection({"acc": Accuracy()}),
            # No compute groups: torchmetrics merges metrics whose states are equal after the first batch, e.g. both 0.
            MetricCollection({"asr": AttackSuccessRate(), "ra": RobustAccuracy()}, compute_groups=False),
        ]
        self.val = nn.ModuleList(part.clone(prefix="val/") for part in parts)
        self.test = nn.ModuleList(part.clone(prefix="test/") for part in parts)
        matrices = len(parts) if num_classes <= CONFUSION_CLASSES else 0
        self.matrices = nn.ModuleList(MulticlassConfusionMatrix(num_classes) for _ in range(matrices))

    def update(self, stage: str, part: int, logits: Tensor, batch: Batch) -> MetricCollection:
        """Update the metrics with a batch.

        Args:
            stage: `val` or `test`.
            part: Number of the loader, an index into `PARTS`.
            logits: (N, classes), the outputs for the batch.
            batch: The batch, with labels.

        Returns:
            The updated metrics, to be logged.
        """
        metrics = cast(MetricCollection, (self.val if stage == "val" else self.test)[part])
        metrics.update(logits, batch.targets, batch.labels)
        if stage == "test" and self.matrices:
            cast(Metric, self.matrices[part]).update(logits, batch.labels)
        return metrics

    def counted(self, stage: str = "test") -> dict[str, Share | None]:
        """Image counts of the figures of the last `test` or validation (`val`), by name."""
        parts = self.val if stage == "val" else self.test
        metrics = (one for part in parts for one in cast(MetricCollection, part).items(keep_base=True))
        return {name: cast(Any, metric).share for name, metric in metrics}

    def confusions(self) -> dict[str, Tensor]:
        """The confusion matrices of the test that just ended, which are then reset.

        Returns:
            For each part that had images, (classes, classes) counts: true classes in rows, predicted classes in
            columns.
        """
        found = {}
        for part, module in zip(PARTS, self.matrices, strict=False):
            matrix = cast(Metric, module)
            if matrix.update_count:
                found[part] = matrix.compute().cpu()
                matrix.reset()
        return found
