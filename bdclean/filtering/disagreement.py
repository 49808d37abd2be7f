"""Disagreement of the suspect and the cleansed network."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.errors import InputError
from bdclean.filtering.base import Context, ImageScore, PredictedBatch


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """The log-odds log(p / (1 - p)) of one class for each image, from logits so that large values stay exact.

    Args:
        logits: (N, C), at least two classes.
        classes: (N,) the class of each image.

    Returns:
        (N,): the logit of the class minus the log-sum-exp of all other logits.
    """
    own = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own[:, 0] - others.logsumexp(1)


class Disagreement(ImageScore):
    """How much less the cleansed network believes in the suspect's prediction.

    With y the class that the suspect predicts, and p its probability, the score is the suspect's log-odds
    log(p_y / (1 - p_y)) minus the cleansed network's log-odds of the same class. It is near 0 where cleansing changed
    nothing, and large where the cleansed network no longer makes the suspect's prediction: for a trigger that was
    removed. It misses triggers that the cleansed network still obeys, and is raised by images that cleansing harmed.

    Source: this project.
    """

    uses_cleansed = True

    def check(self, context: Context) -> None:
        if context.cleansed is None:
            raise InputError("cleansed", None, "needed by Disagreement; the other scores use the suspect alone")

    def score(self, context: Context, batch: PredictedBatch) -> Tensor:
        assert batch.cleansed is not None
        return log_odds(batch.suspect, batch.predicted) - log_odds(batch.cleansed, batch.predicted)
