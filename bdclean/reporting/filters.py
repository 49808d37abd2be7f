"""The result of scoring images: which of them carry a trigger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bdclean.filtering import LOW_FPR, auroc, true_positive_rate
from bdclean.reporting.parts import Cost, Paths, Subject

SCHEMA = 1
"""Version of the JSON; it increases whenever a key is removed or changes its meaning."""


@dataclass(frozen=True)
class FilterMetrics:
    """How well a score separates images whose triggers are known.

    Attributes:
        auroc: Area under the ROC curve, a share.
        tpr: Share of triggered images that are found at a false positive rate of `LOW_FPR`.
        flagged_clean: Share of clean images that are flagged.
        flagged_triggered: Share of triggered images that are flagged.
        clean: Number of clean images.
        triggered: Number of triggered images.
    """

    auroc: float
    tpr: float
    flagged_clean: float
    flagged_triggered: float
    clean: int
    triggered: int

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "auroc": round(self.auroc, 4),
            "tpr": round(self.tpr, 4),
            "tpr_at_fpr": LOW_FPR,
            "flagged_clean": round(self.flagged_clean, 4),
            "flagged_triggered": round(self.flagged_triggered, 4),
            "clean_images": self.clean,
            "triggered_images": self.triggered,
        }


@dataclass(frozen=True)
class Threshold:
    """How images are flagged.

    Attributes:
        alpha: The share of false alarms, or without clean images the share of images that are flagged by rank.
        value: Images with a higher score are flagged; None without clean images.
        clean: (M,) scores of the images that are known to be clean; empty if there are none.
        origin: What these images are, for reports.
    """

    alpha: float
    value: float | None
    clean: Tensor
    origin: str = ""


@dataclass(frozen=True)
class Filtering:
    """The scores of N images.

    Attributes:
        score: Name of the score.
        options: Options of the score.
        subject: The suspect.
        images: Name of each image: its file, or else its index.
        scores: (N,) suspicion of each image; higher is more suspicious.
        suspect: (N,) classes that the suspect predicts.
        cleansed: (N,) classes that the cleansed network predicts; None without one.
        flagged: (N,) bool.
        p_values: (N,) p-value of each score among those of clean images; None if no image is known to be clean.
        threshold: How images are flagged.
        cost: Time and device.
        most_suspicious: (K, 3, H, W) in [0, 1], the images with the highest scores, in the order of `order`.
        triggered: (N,) bool, which images have a trigger, where it is known.
        cleansed_path: File of the cleansed network.
        paths: Paths of the suspect and of the result.
    """

    score: str
    options: Mapping[str, Any]
    subject: Subject
    images: Sequence[str]
    scores: Tensor
    suspect: Tensor
    cleansed: Tensor | None
    flagged: Tensor
    p_values: Tensor | None
    threshold: Threshold
    cost: Cost
    most_suspicious: Tensor
    triggered: Tensor | None = None
    cleansed_path: str | None = None
    paths: Paths = field(default_factory=Paths)

    @property
    def order(self) -> list[int]:
        """Indices of the images, the most suspicious first."""
        return self.scores.argsort(descending=True, stable=True).tolist()

    @property
    def flagged_count(self) -> int:
        """Number of flagged images."""
        return int(self.flagged.sum())

    @property
    def metrics(self) -> FilterMetrics | None:
        """How well the score separates the images; None unless clean and triggered ones are known."""
        if self.triggered is None:
            return None
        area, rate = (function(self.scores, self.triggered) for function in (auroc, true_positive_rate))
        if area is None or rate is None:
            return None
        found, false = (float(self.flagged[part].double().mean()) for part in (self.triggered, ~self.triggered))
        number = int(self.triggered.sum())
        return FilterMetrics(area, rate, false, found, len(self.triggered) - number, number)

    @property
    def headline(self) -> str:
        """The number of flagged images, without a full stop."""
        return f"{self.flagged_count:,} of {len(self.images):,} images are flagged"

    @property
    def explanation(self) -> str:
        """The meaning of that number, as one sentence."""
        if self.threshold.value is None:
            return "They have the highest scores, whether or not they carry a trigger: no image is known to be clean."
        expected = self.threshold.alpha * len(self.images)
        return (
            f"Without any trigger, about {expected:,.{0 if expected >= 10 else 1}f} would be, by the threshold from "
            f"{len(self.threshold.clean):,} {self.threshold.origin}."
        )

    @property
    def sentence(self) -> str:
        """The result in two sentences."""
        return f"{self.headline}. {self.explanation}"

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        known = ["triggered"] if self.triggered is not None else []
        return ["image", "suspect", "cleansed", "score", "p_value", "flagged", *known]

    def rows(self) -> Iterator[list[object]]:
        """A row for each image; cells of unknown values are empty."""
        blank = [""] * len(self.images)
        columns: list[Sequence[object]] = [
            self.images,
            self.suspect.tolist(),
            blank if self.cleansed is None else self.cleansed.tolist(),
            # Numbers, as a text that begins with a minus sign would be quoted for spreadsheets.
            [float(f"{score:.6g}") for score in self.scores.tolist()],
            blank if self.p_values is None else [float(f"{p:.4g}") for p in self.p_values.tolist()],
            _words(self.flagged),
        ]
        if self.triggered is not None:
            columns.append(_words(self.triggered))
        yield from map(list, zip(*columns, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        metrics, value = self.metrics, self.threshold.value
        return {
            "schema": SCHEMA,
            **self.paths.to_json(),
            "cleansed": self.cleansed_path,
            "score": self.score,
            "options": dict(self.options),
            "images": len(self.images),
            "flagged": self.flagged_count,
            "flagged_images": [self.images[index] for index in self.flagged.nonzero()[:, 0].tolist()],
            "alpha": self.threshold.alpha,
            # JSON has no infinity, the threshold that flags all images.
            "threshold": value if value is not None and math.isfinite(value) else None,
            "known_clean_images": len(self.threshold.clean),
            "sentence": self.sentence,
            "metrics": None if metrics is None else metrics.to_json(),
            "seconds": self.cost.seconds,
            "device": self.cost.device,
            **self.subject.to_json(),
        }


def _words(flags: Tensor) -> list[str]:
    return [str(flag).lower() for flag in flags.tolist()]
