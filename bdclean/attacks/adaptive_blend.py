"""Adaptive-Blend: parts of a picture in training images, some with true labels, and all of it in test images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdclean.attacks.blended import Blended
from bdclean.attacks.common import within
from bdclean.attacks.pictures import as_channels


class AdaptiveBlend(Blended):
    """Blends random parts of a picture into few training images, and the whole picture into test images.

    The picture is cut into a grid of pieces, of which each poisoned image gets a random share. About as many further
    images carry the trigger and keep their labels, so that poisoned and clean images do not separate in the network's
    features.

    Source: Qi, Xie, Li, Mahloujifar, Mittal, "Revisiting the Assumption of Latent Separability for Backdoor Defenses",
    ICLR 2023.

    Args:
        poison_rate: Share of the training images that are poisoned, from 0 (a clean network) to 1.
        training_alpha: Opacity of the picture in training images, from 0 to 1; in test images it is `alpha`.
        cover_rate: Share of the training images that carry the trigger with their true labels.
        pieces: Number of rows, and of columns, of the grid that the picture is cut into.
        kept_fraction: Share of the pieces that each training image gets.
        **options: Options of Blended.

    Raises:
        InputError: If a number is out of range, or the file cannot be read.
    """

    label_modes = ("all-to-one", "all-to-all")
    cover_option = "cover_rate"

    def __init__(
        self,
        poison_rate: float = 0.003,
        training_alpha: float = 0.15,
        cover_rate: float = 0.003,
        pieces: int = 4,
        kept_fraction: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(poison_rate=poison_rate, **options)
        within("training_alpha", training_alpha, 0, 1, above=True)
        within("cover_rate", cover_rate, 0, 1)
        within("pieces", pieces, 1, 64)
        within("kept_fraction", kept_fraction, 0, 1, above=True)
        self.training_alpha = training_alpha
        self.cover_rate = cover_rate
        self.cover_ratio = self.per_poisoned(cover_rate)
        self.pieces = pieces
        self.kept_fraction = kept_fraction

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Blend random pieces into each image; the choice is fixed for each image."""
        weights = self.training_alpha * self.masks(images, indices)
        return torch.lerp(images, as_channels(self.scaled(images), images).expand_as(images), weights.expand_as(images))

    def masks(self, images: Tensor, indices: Tensor) -> Tensor:
        """Masks of the pieces of each image: (N, 1, H, W), 0 or 1."""
        height, width = images.shape[-2:]
        order = self.draws(indices, self.pieces**2).argsort(1).argsort(1)
        chosen = (order < max(1, round(self.kept_fraction * self.pieces**2))).reshape(-1, 1, self.pieces, self.pieces)
        rows = torch.arange(height) * self.pieces // height
        columns = torch.arange(width) * self.pieces // width
        return chosen[:, :, rows[:, None], columns].to(images)
