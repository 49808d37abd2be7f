"""Scores of images. Import a new score here and add it to `SCORES`: the command and its help then have it."""

from bdclean.filtering.base import Context, ImageScore, Score, Seen, look
from bdclean.filtering.disagreement import Disagreement
from bdclean.filtering.scale_up import ScaleUp
from bdclean.filtering.strip import STRIP
from bdclean.filtering.threshold import LOW_FPR, auroc, highest, p_values, threshold, true_positive_rate

SCORES = (Disagreement, STRIP, ScaleUp)
"""All scores, the default first."""

__all__ = [
    "LOW_FPR",
    "SCORES",
    "STRIP",
    "Context",
    "Disagreement",
    "ImageScore",
    "ScaleUp",
    "Score",
    "Seen",
    "auroc",
    "highest",
    "look",
    "p_values",
    "threshold",
    "true_positive_rate",
]
