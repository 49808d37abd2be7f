"""Hand-made results."""

from typing import Any

import torch

from bdclean.reporting.measures import Figure, Figures, Interval
from bdclean.reporting.parts import Cost, Counts, Subject
from bdclean.reporting.results import Cleansing
from bdclean.scanning import Finding

DESCRIPTION = {"arch": "small_cnn", "num_classes": 4, "image_size": 8, "mean": [0.5], "std": [0.25]}


def finding(p: float, suspected: int = 1, detector: str = "Some") -> Finding:
    """The finding of a detector: one of four classes, with a p-value."""
    scores, p_values = torch.zeros(4), torch.ones(4)
    scores[suspected], p_values[suspected] = 1, p
    return Finding(detector, scores, p_values)


def cleansing(**parts: Any) -> Cleansing:
    """The result of a cleansing, with harmless defaults."""
    usual: dict[str, Any] = {
        "method": "FineTune",
        "options": {"supervision": "teacher"},
        "epochs": 3,
        "description": (),
        "subject": Subject(DESCRIPTION),
        "suspect": Figures(),
        "cleansed": Figures(agreement=Figure(98.6, Interval(98.2, 98.9, 5000))),
        "agreement_on": "test images",
        "counts": Counts(40, 40, 0, 0),
        "cost": Cost(1.5, "cpu"),
    }
    return Cleansing(**usual | parts)
