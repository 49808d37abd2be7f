"""One perturbation for all images, optimised on clean networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.common import PAPER_SIZE


def perturbed(images: Tensor, perturbation: Tensor) -> Tensor:
    """Add a perturbation (C, h, w), resized to the images, to images (N, C, H, W) in [0, 1]; clipped to [0, 1]."""
    change = F.interpolate(perturbation[None].to(images), images.shape[-2:], mode="bilinear")
    return (images + change).clamp(0, 1)


def universal(
    networks: Sequence[nn.Module],
    batches: Iterable[Tensor],
    target: int,
    lr: float,
    limit: Callable[[Tensor], Tensor],
) -> Tensor:
    """Optimise one perturbation that flips images to a class in all given networks: Adam on the sum of their losses.

    Args:
        networks: Map images in [0, 1] to logits, without gradients for their weights.
        batches: Batches of images, (N, 3, H, W).
        target: The target class.
        lr: Size of a step, in grey levels of 255.
        limit: Projects a perturbation to the allowed ones, after each step.

    Returns:
        (3, 32, 32), for `perturbed`.
    """
    device = next(networks[0].parameters()).device
    found = torch.zeros(3, PAPER_SIZE, PAPER_SIZE, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([found], lr / 255)
    for images in batches:
        triggered = perturbed(images, found)
        wanted = torch.full((len(images),), target, device=device)
        loss = torch.stack([F.cross_entropy(one(triggered), wanted) for one in networks]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            found.copy_(limit(found))
    return found.detach()


def within_box(eps: float) -> Callable[[Tensor], Tensor]:
    """A `limit` that clips each pixel to a change of at most `eps` grey levels of 255."""
    return lambda perturbation: perturbation.clamp(-eps / 255, eps / 255)
