"""Precision in which networks compute."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bdclean.modules import Classifier
from bdclean.networks import frozen


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has hardware support for bf16; without it, bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def whole(model: Classifier) -> nn.Module:
    """A frozen float32 copy of a network with its normalisation: from images in [0, 1] to logits."""
    return frozen(nn.Sequential(model.normalize, model.network)).float()


@torch.no_grad()
def bears_bf16(network: nn.Module, image: Tensor) -> bool:
    """Whether a network runs under bf16 autocast; some fail because they mix bf16 and float32 tensors.

    Args:
        network: The network, on the device of the image.
        image: (1, C, H, W), an input of the network.
    """
    try:
        with torch.autocast(image.device.type, torch.bfloat16):
            network(image)
    except RuntimeError:
        return False
    return True


class InBf16(nn.Module):
    """A network that computes in bf16, with float32 images and logits.

    Only its layers use bf16, as the statistics of detectors need float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return cast(Tensor, self.network(images)).to(images.dtype)
