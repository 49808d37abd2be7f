"""Scores of images. Import a new score here and add it to `SCORES`: the command and its help then have it."""

from bdclean.filtering.base import Context, ImageScore, PredictedBatch, Score, predict_batches
from bdclean.filtering.clustering import ActivationClustering
from bdclean.filtering.disagreement import Disagreement
from bdclean.filtering.ibd_psc import IBDPSC
from bdclean.filtering.pool import PoolScore
from bdclean.filtering.scale_up import ScaleUp
from bdclean.filtering.spectral import SpectralSignatures
from bdclean.filtering.strip import STRIP
from bdclean.filtering.teco import TeCo
from bdclean.filtering.threshold import LOW_FPR, auroc, highest, p_values, threshold, true_positive_rate
from bdclean.filtering.untangling import SCAn

SCORES = (Disagreement, STRIP, ScaleUp, IBDPSC, TeCo, ActivationClustering, SpectralSignatures, SCAn)
"""All scores, the default first."""

__all__ = [
    "IBDPSC",
    "LOW_FPR",
    "SCORES",
    "STRIP",
    "ActivationClustering",
    "Context",
    "Disagreement",
    "ImageScore",
    "PoolScore",
    "PredictedBatch",
    "SCAn",
    "ScaleUp",
    "Score",
    "SpectralSignatures",
    "TeCo",
    "auroc",
    "highest",
    "p_values",
    "predict_batches",
    "threshold",
    "true_positive_rate",
]
