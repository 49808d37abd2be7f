"""In which precision networks compute."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bdclean.modules import Classifier
from bdclean.networks import frozen


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has units for it: without them it would be slower than single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def whole(model: Classifier) -> nn.Module:
    """A network with its normalisation, frozen: from images in [0, 1], in single precision, to logits."""
    return frozen(nn.Sequential(model.normalize, model.network)).float()


@torch.no_grad()
def bears_bf16(network: nn.Module, image: Tensor) -> bool:
    """Whether a network computes under autocast: some mix what this makes of an answer with what it leaves as it is.

    Args:
        network: On the device of the image.
        image: (1, C, H, W), as the network takes it.
    """
    try:
        with torch.autocast(image.device.type, torch.bfloat16):
            network(image)
    except RuntimeError:
        return False
    return True


class InBf16(nn.Module):
    """A network that computes in bf16, from images in single precision to logits in it.

    Its layers alone: what detectors count and compare would lose digits that matter.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return cast(Tensor, self.network(images)).to(images.dtype)
