"""Label-Consistent: images of the target class that are hard to recognise, with patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.base import Attack, LabelMode
from bdclean.attacks.common import Lookup, scaled, within
from bdclean.attacks.pictures import corners
from bdclean.attacks.roles import POISONED
from bdclean.attacks.surrogate import check_training, progress, train_surrogate
from bdclean.training import batch_size


class LabelConsistent(Attack):
    """Perturbs images of the target class until a clean network misclassifies them, and adds patches in the corners.

    The perturbation makes the class hard to learn from these images, so that the network learns the patches instead: x'
    = stamp(x + v), |v| <= eps, with v found by projected gradient ascent (PGD) on a clean network's loss. Labels stay
    true. Test images get the patches alone. The program trains the clean network itself, on the same images and without
    adversarial training; the paper's is trained adversarially.

    Source: Turner, Tsipras, Madry, "Label-Consistent Backdoor Attacks", 2019.

    Args:
        label_mode: Only `clean-label`: only images of the target class are poisoned.
        poison_rate: Share of the target class's training images that are poisoned, from 0 (a clean network) to 1.
        eps: Largest change of a pixel by the perturbation, in grey levels of 255.
        step: Size of a step of the gradient ascent, in grey levels of 255.
        steps: Number of steps of the gradient ascent.
        size: Side of the patches in pixels; by default 3 for images of up to 32 pixels, and in proportion for larger
            ones.
        margin: Distance between the patches and the edges of the image, in pixels.
        surrogate_epochs: Number of epochs for which the clean network is trained.
        surrogate_lr: Highest learning rate of the clean network.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range, or the patches do not fit into the image.
    """

    label_modes = ("clean-label",)
    perturbed: Tensor
    rows: Tensor

    def __init__(
        self,
        label_mode: LabelMode = "clean-label",
        poison_rate: float = 0.5,
        eps: float = 8.0,
        step: float = 2.0,
        steps: int = 10,
        size: int | None = None,
        margin: int = 0,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, **options)
        within("eps", eps, 0, 255, above=True)
        within("step", step, 0, 255, above=True)
        within("steps", steps, 1)
        if size is not None:
            within("size", size, 1)
        within("margin", margin, 0)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        self.eps = eps
        self.step = step
        self.steps = steps
        self.size = size
        self.margin = margin
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr
        # Training images, not the trigger, so not part of checkpoints.
        self.register_buffer("perturbed", torch.empty(0), persistent=False)
        self.register_buffer("rows", torch.empty(0), persistent=False)

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Apply a black and white patch to each corner of a batch: (N, C, H, W) float in [0, 1]."""
        side = self.size or scaled(3, min(images.shape[-2:]))
        # A grid of 3x3 cells, black in the corners and the middle, if the patch has enough pixels.
        field = (torch.arange(side, device=images.device) * 3).div(side, rounding_mode="floor")
        patch = ((field[:, None] + field) % 2).to(images)
        triggered = images.clone()
        for top, left in corners(images, side, self.margin):
            triggered[..., top : top + side, left : left + side] = patch
        return triggered

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Apply the patches to the perturbed images."""
        if not len(self.rows):
            raise RuntimeError("its images have not been prepared")
        perturbed = self.perturbed[self.rows.to(indices.device)[indices].to(self.perturbed.device)]
        return self.apply(perturbed.to(images) / 255)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train a clean network, and perturb the images that will be poisoned."""
        chosen = (self.choose(labels, num_classes) == POISONED).nonzero().squeeze(1)
        first = images(torch.tensor([0]))
        self.apply(first)  # raises an error before the training if the patches do not fit
        clean = train_surrogate(network, images, labels, self.surrogate_epochs, self.surrogate_lr)

        def perturb(indices: Tensor) -> Tensor:
            found = pgd(clean, images(indices), labels[indices], self.eps / 255, self.step / 255, self.steps)
            return found.mul(255).round().to(torch.uint8).cpu()

        pieces = torch.split(chosen, batch_size(first))
        self.perturbed = torch.cat([perturb(indices) for indices in progress(pieces, "Perturbing images")])
        self.rows = torch.full((len(labels),), -1).index_put((chosen,), torch.arange(len(chosen)))


def pgd(network: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """Projected gradient ascent on the cross-entropy, from a random start in the ball.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Args:
        network: Maps images to logits.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) true classes.
        eps: Largest change of a pixel.
        step: Change of each pixel in a step.
        steps: Number of steps.

    Returns:
        (N, C, H, W) in [0, 1], each pixel within `eps` of the image's.
    """
    labels = labels.to(images.device)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    found = torch.minimum(torch.maximum(images + eps * (2 * torch.rand_like(images) - 1), low), high)
    for _ in range(steps):
        found.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(found), labels), found)
        found = torch.minimum(torch.maximum(found.detach() + step * gradient.sign(), low), high)
    return found
