"""Input-Aware: a network generates a different trigger for each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import Lookup, seeded, within
from bdclean.attacks.generators import Generator
from bdclean.attacks.surrogate import shuffled


class InputAware(Attack):
    """Puts a pattern generated for each image through a mask generated for it: x' = (1 - m(x)) x + m(x) p(x).

    Pattern and mask come from two small networks. The mask network is trained first, towards few pixels and diverse
    masks: L = l_norm mean(max(m - density, 0)) + l_div D(m). The pattern network is trained together with the
    classifier, with l_div D(p) in the loss, where D(g) = mean(|x1 - x2| / |g(x1) - g(x2)|) is large if different images
    get the same output. Images with the pattern and mask of another image keep their labels (cross-trigger mode), so
    that only an image's own trigger works.

    Source: Nguyen, Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020.

    Args:
        cross_rate: Share of the training images that carry another image's trigger with their true labels.
        mask_density: Mean opacity that a mask may have without a penalty.
        lambda_div: Weight l_div of the diversity loss.
        lambda_norm: Weight l_norm of the mask's size.
        mask_epochs: Number of epochs for which the mask network is trained; fractions are possible.
        generator_lr: Learning rate of both generating networks (Adam).
        width: Number of channels of the first layer of both generating networks.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("all-to-one", "all-to-all")
    poisons_each_step = True
    trains_trigger = True
    cover_option = "cross_rate"

    def __init__(
        self,
        cross_rate: float = 0.1,
        mask_density: float = 0.032,
        lambda_div: float = 1.0,
        lambda_norm: float = 100.0,
        mask_epochs: float = 25.0,
        generator_lr: float = 0.01,
        width: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        within("cross_rate", cross_rate, 0, 1)
        within("mask_density", mask_density, 0, 1)
        within("lambda_div", lambda_div, 0)
        within("lambda_norm", lambda_norm, 0)
        within("mask_epochs", mask_epochs, 0, 10_000, above=True)
        within("generator_lr", generator_lr, 0, 1, above=True)
        within("width", width, 1, 128)
        self.cross_rate = cross_rate
        self.cover_ratio = self.per_poisoned(cross_rate)
        self.mask_density = mask_density
        self.lambda_div = lambda_div
        self.lambda_norm = lambda_norm
        self.mask_epochs = mask_epochs
        self.generator_lr = generator_lr
        self.width = width
        with seeded(self.seed):
            self.pattern_network = Generator(3, 3, width)
            self.mask_network = Generator(3, 1, width).requires_grad_(False)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Apply to each image its own trigger: (N, 3, H, W) float in [0, 1]."""
        return torch.lerp(images, self.pattern(images), self.mask(images))

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Apply to each cover image the trigger of the previous image in the batch, and to the others their own."""
        # In a batch of one, the trigger of the mirrored image.
        others = images.roll(1, 0) if len(images) > 1 else images.flip(-1)
        source = torch.where(cover[:, None, None, None], others, images)
        return torch.lerp(images, self.pattern(source), self.mask(source))

    def pattern(self, images: Tensor) -> Tensor:
        """Each image's pattern, (N, 3, H, W) in [0, 1]."""
        found: Tensor = self.pattern_network(images)
        return found.sigmoid()

    def mask(self, images: Tensor) -> Tensor:
        """Each image's mask, (N, 1, H, W) in [0, 1], mostly near 0 or 1."""
        found: Tensor = self.mask_network(images)
        return ((20 * found.sigmoid() - 10).tanh() + 1) / 2

    def penalty(
        self, images: Tensor, places: Tensor, targets: Tensor, network: Callable[[Tensor], Tensor]
    ) -> Tensor | float:
        """The diversity loss of the patterns, with respect to the previous image in the batch."""
        chosen = images[places]
        return self.lambda_div * diversity_loss(chosen, self.pattern(chosen)) if len(chosen) > 1 else 0.0

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam for the pattern network."""
        return torch.optim.Adam(self.pattern_network.parameters(), self.generator_lr, betas=(0.5, 0.9))

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train the mask network."""
        self.mask_network.requires_grad_(True)
        optimizer = torch.optim.Adam(self.mask_network.parameters(), self.generator_lr, betas=(0.5, 0.9))
        for indices in shuffled(images, len(labels), self.mask_epochs, "Training the mask network"):
            batch = images(indices)
            masks = self.mask(batch)
            size = F.relu(masks - self.mask_density).mean()
            loss = self.lambda_norm * size + self.lambda_div * diversity_loss(batch, masks)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        self.mask_network.requires_grad_(False)


def diversity_loss(images: Tensor, outputs: Tensor) -> Tensor:
    """The similarity of outputs for different images: the mean of |x1 - x2| / |g(x1) - g(x2)|, with root mean squares.

    Args:
        images: (N, ...), each compared with the previous one.
        outputs: (N, ...), the outputs g(x) for them.
    """

    def distances(values: Tensor) -> Tensor:
        # Offset from 0, where the root has no gradient.
        return ((values - values.roll(1, 0)).flatten(1).square().mean(1) + 1e-8).sqrt()

    return (distances(images) / (distances(outputs) + 1e-3)).mean()
