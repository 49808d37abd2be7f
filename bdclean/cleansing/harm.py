"""Whether a cleansing did harm, without labels: by the images that the suspect and the cleansed network disagree on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

MARGIN = 0.02
"""Share of the images: by how much disagreement may exceed the suspect's own uncertainty."""
CLASS_MARGIN = 0.1
"""The same for the images of one class."""
FEWEST_IMAGES = 20
"""Classes with fewer of the suspect's images are judged only by whether they are dead."""
DEAD = 5
"""A class that the suspect gives to so many images, and the cleansed network to none, is dead."""
DEVIATIONS = 2.0
"""Standard deviations of a share that chance is allowed."""


@dataclass(frozen=True)
class LostClass:
    """A class whose images moved to other classes.

    Attributes:
        number: The class.
        images: How many images the suspect gives it.
        kept: How many of these the cleansed network gives it, too.
        now: How many images of any kind the cleansed network gives it.
    """

    number: int
    images: int
    kept: int
    now: int


@dataclass(frozen=True)
class Harm:
    """By how much a cleansed network disagrees with the suspect, against how unsure the suspect is.

    Attributes:
        images: How many were compared.
        disagreement: Share of them on which the top classes differ.
        uncertainty: One minus the suspect's mean probability of its top class: the share of its predictions that it
            expects to be wrong, and that another network of its kind may well make otherwise.
        lost: Classes that lost more images than that explains, the worst first.
    """

    images: int
    disagreement: float
    uncertainty: float
    lost: tuple[LostClass, ...]

    @property
    def reasons(self) -> list[str]:
        """Why the cleansed network is not to be trusted, a clause each; empty if nothing speaks against it."""
        found = []
        if self.disagreement - _chance(self.disagreement, self.images) > self.uncertainty + MARGIN:
            found.append(
                f"it disagrees with the suspect on {100 * self.disagreement:.1f} % of {self.images} images, and the "
                f"suspect is uncertain about {100 * self.uncertainty:.1f} %"
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

    A class that images reach by a trigger alone loses them rightly: where the images may carry the trigger, a lost
    class is a reason to look, not a proof.

    Args:
        moved: (C, C) counts of images: rows the suspect's classes, columns the cleansed network's.
        confidence: (C,) for each class, the sum over the suspect's images of its probability of that class.
    """
    had, kept, now = moved.sum(1), moved.diagonal(), moved.sum(0)
    images = int(had.sum())
    unsure = 1 - (confidence / had.clamp(min=1)).clamp(0, 1)
    lost = []
    for number in range(len(moved)):
        before, same, after = int(had[number]), int(kept[number]), int(now[number])
        share = 1 - same / max(1, before)
        dead = before >= DEAD and after == 0
        moved_out = share - _chance(share, before) > float(unsure[number]) + CLASS_MARGIN
        if dead or (before >= FEWEST_IMAGES and moved_out):
            lost.append(LostClass(number, before, same, after))
    lost.sort(key=lambda one: one.kept / one.images)
    total = max(1, images)
    return Harm(images, 1 - float(kept.sum()) / total, 1 - float(confidence.sum()) / total, tuple(lost))


def _chance(share: float, images: int) -> float:
    """By how much a share of so many images may exceed what is true, by chance."""
    return DEVIATIONS * math.sqrt(share * (1 - share) / max(1, images))
