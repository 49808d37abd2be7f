"""Triggered test images from a suspect's file."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from bdclean.checkpoint import Triggered
from bdclean.data.batches import Batches
from bdclean.data.files import FileImages
from bdclean.data.images import ArrayImages, Images
from bdclean.data.placement import Placement
from bdclean.errors import Given


def triggered_batches(brought: Triggered, image_size: int, placement: Placement) -> Batches:
    """Make a dataset of triggered test images.

    Args:
        brought: The images, as files or in memory, with their classes.
        image_size: Height and width to resize them to, in pixels.
        placement: Where the images are kept.
    """
    images: Images
    if isinstance(brought.images[0], Path):
        images = FileImages(brought.images, image_size, Given("ckpt"), brought.labels)
    else:
        pixels = [pil_to_tensor(image.convert("RGB")).permute(1, 2, 0) for image in brought.images]
        images = ArrayImages(torch.stack(pixels), image_size, brought.labels)
    return Batches(placement.place(images), brought.targets, brought.labels)
