"""Triggered test images from a suspect's file, or from the source of the labelled images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from bdclean.checkpoint import Triggered
from bdclean.data.batches import Batches
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images
from bdclean.data.placement import Placement
from bdclean.data.sources import Source
from bdclean.errors import Given


def triggered_batches(
    brought: Triggered | None, source: Source | None, image_size: int, placement: Placement
) -> Batches | None:
    """Make a dataset of triggered test images; None if there are none.

    Args:
        brought: The images in the suspect's file, with their classes.
        source: The labelled images, which may have triggered ones, too.
        image_size: Height and width to resize them to, in pixels.
        placement: Where the images are kept.
    """
    if brought is None and source is not None:
        brought = source.triggered()
    if brought is None:
        return None
    images: Images
    if isinstance(brought.images, Tensor):
        images = ArrayImages(brought.images, image_size, brought.labels)
    elif isinstance(brought.images[0], Path):
        images = FileImages(brought.images, image_size, Given("ckpt"), brought.labels)
    else:
        pixels = [pil_to_tensor(image.convert("RGB")).permute(1, 2, 0) for image in brought.images]
        images = ArrayImages(torch.stack(pixels), image_size, brought.labels)
    return Batches(placement.place(images), brought.targets, brought.labels)
