"""Estimating the harm of a cleansing without labels, from disagreements between suspect and cleansed network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

MARGIN = 0.02
"""Largest excess of the disagreement over the suspect's uncertainty, as a share of the images."""
CLASS_MARGIN = 0.1
"""Largest excess for the images of one class, as a share of them."""
MIN_CLASS_IMAGES = 20
"""Minimum number of images of a class for comparing shares; smaller classes can only vanish."""
VANISHED_IMAGES = 5
"""Minimum number of images of a class in the suspect for reporting that it vanished."""
DEVIATIONS = 2.0
"""Standard deviations of a share that are attributed to chance."""


@dataclass(frozen=True)
class LostClass:
    """A class whose images moved to other classes.

    Attributes:
        number: The class.
        images: Number of images that the suspect predicts as this class.
        kept: Number of these that the cleansed network predicts as this class too.
        now: Number of all images that the cleansed network predicts as this class.
    """

    number: int
    images: int
    kept: int
    now: int


@dataclass(frozen=True)
class Harm:
    """The disagreement of a cleansed network with the suspect, compared with the suspect's uncertainty.

    Attributes:
        images: Number of images compared.
        disagreement: Share of them on which the predictions differ.
        uncertainty: One minus the suspect's mean probability of its predicted class: the share of its predictions that
            it expects to be wrong, and that a similar network may predict differently.
        lost: Classes that lost more images than the uncertainty explains, the worst first.
    """

    images: int
    disagreement: float
    uncertainty: float
    lost: tuple[LostClass, ...]

    @property
    def reasons(self) -> list[str]:
        """Reasons not to trust the cleansed network, one clause each; empty if there is none."""
        found = []
        if self.disagreement - _chance(self.disagreement, self.images) > self.uncertainty + MARGIN:
            found.append(
                f"it disagrees with the suspect on {100 * self.disagreement:.1f} % of {self.images:,} images, and the "
                f"suspect's uncertainty explains only {100 * self.uncertainty:.1f} %"
            )
        for one in self.lost[:3]:
            if one.now == 0:
                found.append(
                    f"class {one.number} vanished: {one.images} images in the suspect, none in the cleansed network"
                )
            else:
                found.append(f"class {one.number} kept only {one.kept} of its {one.images} images")
        if len(self.lost) > 3:
            found.append(f"{len(self.lost) - 3} more classes lost images")
        return found


def find_harm(moved: Tensor, confidence: Tensor) -> Harm:
    """Compare a cleansed network with the suspect on images that it was not trained on.

    If images may carry the trigger, a lost class is no proof of harm: the target class should lose triggered images.

    Args:
        moved: (C, C) counts of images, rows for the suspect's classes, columns for the cleansed network's.
        confidence: (C,) for each class, the sum of the suspect's probability over its images of that class.
    """
    had, kept, now = moved.sum(1), moved.diagonal(), moved.sum(0)
    images = int(had.sum())
    unsure = 1 - (confidence / had.clamp(min=1)).clamp(0, 1)
    lost = []
    for number in range(len(moved)):
        before, same, after = int(had[number]), int(kept[number]), int(now[number])
        share = 1 - same / max(1, before)
        vanished = before >= VANISHED_IMAGES and after == 0
        moved_out = share - _chance(share, before) > float(unsure[number]) + CLASS_MARGIN
        if vanished or (before >= MIN_CLASS_IMAGES and moved_out):
            lost.append(LostClass(number, before, same, after))
    lost.sort(key=lambda one: one.kept / one.images)
    total = max(1, images)
    return Harm(images, 1 - float(kept.sum()) / total, 1 - float(confidence.sum()) / total, tuple(lost))


def _chance(share: float, images: int) -> float:
    """The amount by which a measured share of the images may exceed the true share by chance."""
    return DEVIATIONS * math.sqrt(share * (1 - share) / max(1, images))
