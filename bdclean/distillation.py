"""What a student is told by a teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch, without the factor T^2.

    Args:
        student: (N, C) logits.
        teacher: (N, C) logits.
        temperature: T, above 0.
    """
    answers, targets = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(answers, targets, reduction="batchmean", log_target=True)
