"""Signs that a network does not see the images that it was made for: wrong normalisation, channel order or size."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.errors import Given

LOOKED_AT = 128
"""Images by which a network is looked at."""
FEWEST_IMAGES = 20
"""With fewer images nothing can be said."""
FEWEST_CLASSES = 5
"""Of fewer classes, images may well belong to one or two."""
CROWDED = 0.95
"""Share of the images in one or two classes from which on something is wrong."""
UNSURE = 0.05
"""Confidence of chance: how far of the way from 1/C to 1 the mean probability of the top class is."""
CONSTANT = 1e-6
"""Share of their size by which logits differ from image to image at most if the network is constant."""


def is_constant(logits: Tensor, images: Tensor) -> bool:
    """Whether a network gives the same logits (N, C) for all of images (N, ...) that are not the same themselves."""
    spread = float((logits.amax(0) - logits.amin(0)).max())
    differ = bool((images.amax(0) != images.amin(0)).any())
    return differ and spread <= CONSTANT * float(logits.abs().max().clamp(min=1e-30))


@torch.no_grad()
def find_symptom(logits: Tensor) -> str | None:
    """What a network's logits of various images say against its normalisation.

    Args:
        logits: (N, C).

    Returns:
        A sentence without a full stop; None if nothing speaks against it, or the images are too few to tell.
    """
    number, classes = logits.shape
    if number < FEWEST_IMAGES:
        return None
    counts = logits.argmax(1).bincount(minlength=classes).sort(descending=True)
    crowded = float(counts.values[:2].sum()) / number
    if classes >= FEWEST_CLASSES and crowded >= CROWDED:
        first, second = counts.indices[:2].tolist()
        where = f"class {first}" if counts.values[1] == 0 else f"classes {first} and {second}"
        return f"{100 * crowded:.0f} % of {number} images are predicted as {where}. {_causes()}"
    confidence = float(logits.softmax(1).amax(1).mean())
    if (confidence - 1 / classes) / (1 - 1 / classes) < UNSURE:
        return f"the mean confidence on {number} images is {confidence:.3f}, which is at chance. {_causes()}"
    return None


def _causes() -> str:
    return (
        f"Normalisation ({Given('model.mean')}, {Given('model.std')}), channel order or image size look wrong, or the "
        "images are unlike those that the network was trained on: do not trust the result"
    )
