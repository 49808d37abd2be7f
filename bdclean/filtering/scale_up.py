"""SCALE-UP: the consistency of predictions under amplified pixel values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdclean.filtering.base import Context, ImageScore, PredictedBatch


class ScaleUp(ImageScore):
    """How often the suspect's prediction survives amplified pixel values.

    The score is the share of factors n for which the suspect predicts the same class for the image with its pixel
    values times n, clipped to [0, 1], as for the image itself. Predictions for triggered images tend to survive. This
    is the variant of the paper without clean images.

    Source: Guo et al., "SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via Analyzing Scaled Prediction
    Consistency", ICLR 2023 (arXiv:2302.03251).

    Args:
        factors: The factors n.
    """

    def __init__(self, factors: Sequence[float] = (3.0, 5.0, 7.0, 9.0, 11.0)) -> None:
        self.within("factors", len(factors), 1)
        for factor in factors:
            self.within("factors", factor, 0)
        self.factors = tuple(factors)

    def score(self, context: Context, batch: PredictedBatch) -> Tensor:
        kept = [context.suspect((n * batch.images).clamp(max=1)).argmax(1) == batch.predicted for n in self.factors]
        return torch.stack(kept).float().mean(0)
