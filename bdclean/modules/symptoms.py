"""Signs that images do not match a network's training images: wrong normalisation, channel order or size."""

from __future__ import annotations

import torch
from torch import Tensor

from bdclean.errors import Given

LOOKED_AT = 128
"""Number of images to check a network with."""
FEWEST_IMAGES = 20
"""With fewer images, no sign is reported."""
FEWEST_CLASSES = 5
"""With fewer classes, most images may really belong to one or two of them."""
CROWDED = 0.95
"""Suspicious share of images that are predicted as only one or two classes."""
UNSURE = 0.05
"""Mean top-class probability that counts as chance, rescaled so that 1/C is 0 and 1 is 1."""
CONSTANT = 1e-6
"""Maximum spread of a constant network's logits over images, relative to their magnitude."""


def is_constant(logits: Tensor, images: Tensor) -> bool:
    """Whether a network's logits (N, C) are the same for all images (N, ...), although the images differ."""
    spread = float((logits.amax(0) - logits.amin(0)).max())
    differ = bool((images.amax(0) != images.amin(0)).any())
    return differ and spread <= CONSTANT * float(logits.abs().max().clamp(min=1e-30))


@torch.no_grad()
def find_symptom(logits: Tensor) -> str | None:
    """Check a network's logits for various images for signs of wrong normalisation.

    Args:
        logits: (N, C).

    Returns:
        A sentence without a full stop; None without such a sign, or with too few images.
    """
    number, classes = logits.shape
    if number < FEWEST_IMAGES:
        return None
    counts = logits.argmax(1).bincount(minlength=classes).sort(descending=True)
    crowded = float(counts.values[:2].sum()) / number
    if classes >= FEWEST_CLASSES and crowded >= CROWDED:
        first, second = counts.indices[:2].tolist()
        predicted = f"class {first}" if counts.values[1] == 0 else f"classes {first} and {second}"
        return f"{100 * crowded:.0f} % of {number} images are predicted as {predicted}. {_causes()}"
    confidence = float(logits.softmax(1).amax(1).mean())
    if (confidence - 1 / classes) / (1 - 1 / classes) < UNSURE:
        return f"the mean confidence on {number} images is {confidence:.3f}, which is at chance. {_causes()}"
    return None


def _causes() -> str:
    return (
        f"Normalisation ({Given('model.mean')}, {Given('model.std')}), channel order or image size look wrong, or the "
        "images are unlike those that the network was trained on: do not trust the result"
    )
