"""Networks by name: the small ones of this field, and every classification network of torchvision."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from bdclean import InputError
from bdclean.models.stages import LAYERS

SMALL_IMAGE = 64
"""Up to this size, in pixels, a network made for photographs gets a stem of stride 1."""


class Normalize(nn.Module):
    """(x - mean) / std per channel: the first layer of every classifier, so that triggers live in pixel space.

    Its numbers are settings, not weights: they are not part of the `state_dict`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W) images in [0, 1]."""
        return (images - self.mean) / self.std


class PreActBlock(nn.Module):
    """Residual block with norm and activation before each convolution.

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        activated = torch.relu(self.bn1(x))
        residual = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


def _stack(
    block: Callable[[int, int, int], nn.Module], depth: int, inputs: int, outputs: int, stride: int
) -> nn.Module:
    return nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(depth - 1)))


def _basic_block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, shortcut)


class ResNet(nn.Module):
    """A residual network for small images: a 3x3 stem, stages of which each but the first halves the image, a head.

    Args:
        block: Makes a block from input width, output width and stride.
        widths: Of the stem, then of each stage.
        depth: Blocks a stage.
        num_classes: Width of the answer.
        preact: Whether blocks start with a norm, so that the stem has none and the last stage is followed by one.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        widths: Sequence[int],
        depth: int,
        num_classes: int,
        preact: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.Identity() if preact else nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential(
            *(
                _stack(block, depth, inputs, outputs, 1 if index == 0 else 2)
                for index, (inputs, outputs) in enumerate(pairwise(widths))
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1]) if preact else nn.Identity()
        self.preact = preact
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes)."""
        x = self.conv1(x)
        x = self.stages(x if self.preact else torch.relu(self.bn1(x)))
        if self.preact:
            x = torch.relu(self.norm(x))
        return self.fc(x.mean((2, 3)))


def preact_resnet18(num_classes: int) -> nn.Module:
    """PreAct-ResNet-18 for 32x32 images (He et al., ECCV 2016)."""
    return ResNet(PreActBlock, (64, 64, 128, 256, 512), 2, num_classes, preact=True)


def resnet20(num_classes: int) -> nn.Module:
    """ResNet-20 for 32x32 images (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016)."""
    return ResNet(_basic_block, (16, 16, 32, 64), 3, num_classes, preact=False)


def wrn_16_1(num_classes: int) -> nn.Module:
    """Wide ResNet-16-1 (Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016)."""
    return ResNet(PreActBlock, (16, 16, 32, 64), 2, num_classes, preact=True)


def small_cnn(num_classes: int) -> nn.Module:
    """Six 3x3 convolutions, 145,000 weights: the network for the embedded images, made for two CPU cores."""
    widths = ((3, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))
    layers: list[nn.Module] = []
    for inputs, outputs, stride in widths:
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


OWN: dict[str, Callable[[int], nn.Module]] = {
    "preact_resnet18": preact_resnet18,
    "resnet20": resnet20,
    "small_cnn": small_cnn,
    "wrn_16_1": wrn_16_1,
}


def known_architectures() -> list[str]:
    """The names that `build_network` takes."""
    return sorted([*OWN, *models.list_models(module=models)])


def build_network(arch: str, num_classes: int, image_size: int) -> nn.Module:
    """Build a network with fresh weights, fitted to the size of the images and the number of classes.

    Args:
        arch: One of `known_architectures()`.
        num_classes: Width of the answer.
        image_size: Height and width of the images, in pixels. Up to 64, a network made for photographs gets the stem
            that is usual for CIFAR: 3x3 with stride 1, and without the residual networks' pooling after it.

    Returns:
        A module from normalised images (N, 3, image_size, image_size) to logits (N, num_classes).

    Raises:
        InputError: If the name is unknown, or the network does not take images of that size.
    """
    if arch in OWN:
        return OWN[arch](num_classes)
    names = known_architectures()
    if arch not in names:
        close = difflib.get_close_matches(arch, names, 3) or ["preact_resnet18", "resnet18", "vgg11_bn"]
        raise InputError(f"--model.arch {arch}: no such network; did you mean {', '.join(close)}?")
    try:
        network = _torchvision(arch, num_classes, image_size)
        # Meta tensors have shapes and no data: the trial costs no computation.
        answer = copy.deepcopy(network).to("meta").eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
        if answer.shape != (1, num_classes):
            raise RuntimeError(f"answers {tuple(answer.shape)}")
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(
            f"--model.arch {arch}: does not take {image_size}x{image_size} images ({str(error).splitlines()[0]})"
        ) from error
    return network


def _torchvision(arch: str, num_classes: int, image_size: int) -> nn.Module:
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if arch in ("googlenet", "inception_v3"):
        # Without them the answer in training is a tuple, and initialisation takes minutes.
        options |= {"aux_logits": False, "init_weights": False}
    if arch.startswith("vit_"):
        return models.get_model(arch, image_size=image_size, **options)
    network = models.get_model(arch, **options)
    if image_size <= SMALL_IMAGE:
        _small_stem(network)
        if isinstance(network, models.VGG):
            # Five poolings leave one pixel of 32: the classifier made for 7x7 would see 49 copies of it.
            network.avgpool = nn.AdaptiveAvgPool2d(1)
            network.classifier = nn.Sequential(nn.Linear(512, num_classes))
    return network


def _small_stem(network: nn.Module) -> None:
    """Give a network a 3x3 stem of stride 1, unless it cuts patches, and no `maxpool`."""
    name, stem = next((n, m) for n, m in network.named_modules() if isinstance(m, LAYERS))
    if not isinstance(stem, nn.Conv2d) or stem.stride == (1, 1) or stem.kernel_size == stem.stride:
        return
    parent = network.get_submodule(name.rpartition(".")[0])
    setattr(
        parent,
        name.rpartition(".")[2],
        nn.Conv2d(stem.in_channels, stem.out_channels, 3, 1, 1, bias=stem.bias is not None),
    )
    if isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        network.maxpool = nn.Identity()
