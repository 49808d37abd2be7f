"""Spectral signatures: how far features lie along the main direction of their class."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.filtering.pool import PoolScore, groups


class SpectralSignatures(PoolScore):
    """How far an image's features lie along the direction in which the features of its predicted class vary most.

    Within each class that the suspect predicts, the score is ((f - m) v)^2, with f the penultimate features, m their
    mean over the class, and v the first right singular vector of the centred features.

    Source: Tran, Li, Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018 (arXiv:1811.00636). The paper
    groups by labels; here the suspect's predictions replace them.
    """

    def score(self, features: Tensor, predicted: Tensor) -> Tensor:
        scores = torch.zeros(len(features))
        for members in groups(predicted, 2):
            centred = features[members].double()
            centred -= centred.mean(0)
            direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
            scores[members] = (centred @ direction).square().float()
        return scores
