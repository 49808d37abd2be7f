"""STRIP: the entropy of predictions for blends with other images."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.filtering.base import Context, ImageScore, PredictedBatch


def entropy(logits: Tensor) -> Tensor:
    """Shannon's entropy of predictions in bits: (..., C) logits to (...)."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1) / torch.log(torch.tensor(2.0))


class STRIP(ImageScore):
    """How certain the suspect stays when other images are blended in.

    Each image x is blended with K other images o, (1 - w) x + w o. A trigger that survives the blend keeps the
    prediction at the target class, so that its entropy is low. The score is minus the mean entropy over the K blends,
    in bits. The other images are clean ones if any are known, else some of the images that are scored.

    Source: Gao et al., "STRIP: A Defence Against Trojan Attacks on Deep Neural Networks", ACSAC 2019
    (arXiv:1902.06531). The paper adds images with saturation and uses 100 of them; here they are averaged.

    Args:
        blends: K, the number of blends of each image; fewer if there are fewer other images.
        weight: w, the weight of the other image.
    """

    def __init__(self, blends: int = 32, weight: float = 0.5) -> None:
        self.within("blends", blends, 1)
        self.within("weight", weight, 0, 1)
        self.blends = blends
        self.weight = weight

    def score(self, context: Context, batch: PredictedBatch) -> Tensor:
        total = torch.zeros(len(batch.images), device=batch.images.device)
        overlays = context.overlays[: self.blends]
        for overlay in overlays:
            total += entropy(context.suspect((1 - self.weight) * batch.images + self.weight * overlay))
        return -total / len(overlays)
