"""Grad-CAM: the parts of an image that decide a network's prediction.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017
(arXiv:1610.02391).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.networks import channel_axis, find_features

COARSEST = 4
"""Minimum side of the feature maps that are used: a map of fewer positions cannot show where a trigger is."""


@dataclass(frozen=True)
class Attribution:
    """The maps of some images.

    Attributes:
        maps: (N, H, W) in [0, 1]; 1 is the strongest evidence in an image for the predicted class.
        predicted: (N,) the predicted classes.
    """

    maps: Tensor
    predicted: Tensor


def attribute(network: nn.Module, images: Tensor) -> Attribution | None:
    """Find the parts of images that speak for the class that a network predicts.

    The maps are those of the last stage whose feature maps have at least 4 x 4 positions that the logits depend on. In
    a vision transformer that predicts from its class token, the logits do not depend on the other tokens of the last
    block, so that an earlier block is used.

    Args:
        network: Maps images to logits, in eval mode.
        images: (N, 3, H, W) in [0, 1].

    Returns:
        The maps; None if the network has no such feature maps.
    """
    modules = dict(network.named_modules())
    for name in reversed(find_features(network, images.shape[-1])):
        with _output(modules[name]) as outputs, torch.enable_grad():
            logits = network(images.detach().requires_grad_())
            best = logits.amax(1).sum()
            usable = outputs and outputs[-1].requires_grad and len(outputs[-1]) == len(images)
            gradient = torch.autograd.grad(best, outputs[-1], allow_unused=True)[0] if usable else None
        if gradient is None:
            continue
        maps, gradients = _spatial(outputs[-1].detach()), _spatial(gradient)
        if maps is None or gradients is None or (gradients != 0).flatten(2).any(1).sum() <= len(images):
            continue
        found = (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
        found = F.interpolate(found.float(), images.shape[-2:], mode="bilinear")[:, 0]
        largest = found.amax((1, 2), keepdim=True).clamp(min=1e-12)
        return Attribution((found / largest).cpu(), logits.detach().argmax(1).cpu())
    return None


def _spatial(output: Tensor) -> Tensor | None:
    """Feature maps or tokens as (N, C, h, w), without tokens that are not patches; None if they are too coarse."""
    if output.ndim == 4:
        maps = output if channel_axis(output) == 1 else output.permute(0, 3, 1, 2)
    elif output.ndim == 3:
        side = math.isqrt(output.shape[1])
        # Class and register tokens come first.
        maps = output[:, output.shape[1] - side**2 :].transpose(1, 2).reshape(len(output), -1, side, side)
    else:
        return None
    return maps if min(maps.shape[2:]) >= COARSEST else None


@contextmanager
def _output(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets the output of each call of a module in this context."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        found.append(first)
        # The following layer may change its input in place.
        return (first.clone(), *outputs[1:]) if isinstance(outputs, tuple) else first.clone()

    hook = module.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
