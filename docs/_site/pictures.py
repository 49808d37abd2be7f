"""Pictures of triggers on embedded images."""

from __future__ import annotations

import io

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from bdclean import InputError
from bdclean.attacks import Attack
from bdclean.data.images import to_float
from bdclean.data.shapes import CLASSES
from bdclean.data.sources import open_source
from bdclean.reporting.figures import trigger_figure

SIZE = 32
"""Height and width of the embedded images, in pixels."""
SHOWN = 4
"""Images that show a trigger."""


def embedded_images() -> Tensor:
    """One image of each of some classes, (SHOWN, 3, 32, 32) in [0, 1]."""
    images = open_source("shapes").load("test", SIZE)
    firsts = [int((images.labels == number).nonzero()[0]) for number in range(1, min(SHOWN + 1, len(CLASSES)))]
    return to_float(images.batch(torch.tensor(firsts)))


def trigger(kind: type[Attack], images: Tensor) -> bytes | None:
    """A PNG of images without and with the trigger of an attack, and the difference; None if training makes it."""
    attack = kind()
    if attack.trains_trigger:
        return None
    try:
        attack.build(SIZE)
    except InputError:
        # Only `prepare` can make it, which trains a network.
        return None
    file = io.BytesIO()
    to_pil_image(trigger_figure(images, attack.apply(images).detach())).save(file, "PNG")
    return file.getvalue()
