"""Small networks of the backdoor literature, with layers named as in published checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = Callable[[int, int, int], nn.Module]
"""Makes a residual block from input width, output width and stride."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with a norm, and a shortcut.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the first convolution.
        padded: Whether a shortcut between different widths drops pixels and adds empty channels (the paper's option A),
            instead of being a 1x1 convolution (its option B).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, padded: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        self.stride, self.empty = stride, outputs - inputs
        if not padded and (stride != 1 or inputs != outputs):
            self.shortcut.extend([nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x)))))
        if len(self.shortcut):
            return torch.relu_(residual + self.shortcut(x))
        if self.empty:
            side = self.empty // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, self.empty - side))
        return torch.relu_(residual + x)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions with norm and activation before each.

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.add_shortcut(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def add_shortcut(self, convolution: nn.Conv2d) -> None:
        """Register the convolution of the shortcut under its name in checkpoints."""
        self.shortcut: nn.Module = nn.Sequential(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        activated = torch.relu_(self.bn1(x))
        residual = self.conv2(torch.relu_(self.bn2(self.conv1(activated))))
        return residual + (self.project(activated) if self.projects else x)

    def project(self, activated: Tensor) -> Tensor:
        """The shortcut between different shapes, which starts after the first activation."""
        return self.shortcut(activated)


class ResNet(nn.Module):
    """A residual network for small images: a 3x3 stem, stages that halve the image (except the first), and a head.

    Args:
        block: Makes a block.
        widths: Channels of each stage; the stem has those of the first.
        depth: Blocks per stage.
        num_classes: Number of logits.
        stem_norm: Whether the stem has a norm and an activation.
    """

    def __init__(
        self, block: Block, widths: Sequence[int], depth: Sequence[int], num_classes: int, stem_norm: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        if stem_norm:
            self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        for index, (width, blocks) in enumerate(zip(widths, depth, strict=True)):
            stage = [block(before, width, 1 if index == 0 else 2), *(block(width, width, 1) for _ in range(blocks - 1))]
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
            before = width
        self.num_stages = len(widths)
        self.linear = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes)."""
        x = self.conv1(x)
        if hasattr(self, "bn1"):
            x = torch.relu_(self.bn1(x))
        for index in range(self.num_stages):
            x = self.get_submodule(f"layer{index + 1}")(x)
        return self.linear(x.mean((2, 3)))


class WideBlock(PreActBlock):
    """A PreActBlock for checkpoints of wide residual networks, where the shortcut has another name."""

    def add_shortcut(self, convolution: nn.Conv2d) -> None:
        self.convShortcut = convolution

    def project(self, activated: Tensor) -> Tensor:
        return self.convShortcut(activated)


class WideStage(nn.Module):
    """A sequence of blocks; the first changes width and resolution."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        rest = (WideBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(WideBlock(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.layer(x)


class WideResNet(nn.Module):
    """A wide residual network for small images.

    Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.

    Args:
        depth: Number of layers, 6 n + 4.
        widen: Factor of the widths 16, 32, 64.
        num_classes: Number of logits.
    """

    def __init__(self, depth: int, widen: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = WideStage(blocks, 16, 16 * widen, 1)
        self.block2 = WideStage(blocks, 16 * widen, 32 * widen, 2)
        self.block3 = WideStage(blocks, 32 * widen, 64 * widen, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(torch.relu_(self.bn1(x)).mean((2, 3)))


def small_cnn(num_classes: int) -> nn.Module:
    """Six 3x3 convolutions, 145,000 weights: the network for the embedded images, made for two CPU cores."""
    widths = ((3, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))
    layers: list[nn.Module] = []
    for inputs, outputs, stride in widths:
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


class BadNetsCNN(nn.Module):
    """Two 5x5 convolutions and two linear layers: the network of the BadNets repositories. It ends in a softmax.

    Source: https://github.com/verazuo/badnets-pytorch, after Gu, Dolan-Gavitt, Garg, "BadNets: Identifying
    Vulnerabilities in the Machine Learning Model Supply Chain", 2017.

    Args:
        num_classes: Number of outputs.
        channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
    """

    def __init__(self, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels, 16, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2))
        side = ((image_size - 4) // 2 - 4) // 2
        self.fc1 = nn.Sequential(nn.Linear(32 * side**2, 512), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(512, num_classes), nn.Softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, image_size, image_size) to (N, classes) probabilities."""
        return self.fc2(self.fc1(self.conv2(self.conv1(x)).flatten(1)))


_WIDE = (64, 128, 256, 512)
_NARROW = (16, 32, 64)
_padded = partial(BasicBlock, padded=True)

FIXED: dict[str, tuple[int, int]] = {
    "badnets_cnn_1x28": (1, 28),
    "badnets_cnn_1x32": (1, 32),
    "badnets_cnn_3x28": (3, 28),
    "badnets_cnn_3x32": (3, 32),
}
"""Networks with a fixed image shape: channels, and height and width in pixels."""
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(BadNetsCNN, channels=channels, image_size=size) for name, (channels, size) in FIXED.items()},
    "cifar_resnet18": lambda n: ResNet(BasicBlock, _WIDE, (2, 2, 2, 2), n),
    "cifar_resnet34": lambda n: ResNet(BasicBlock, _WIDE, (3, 4, 6, 3), n),
    "preact_resnet18": lambda n: ResNet(PreActBlock, _WIDE, (2, 2, 2, 2), n, stem_norm=False),
    "preact_resnet34": lambda n: ResNet(PreActBlock, _WIDE, (3, 4, 6, 3), n, stem_norm=False),
    "resnet20": lambda n: ResNet(_padded, _NARROW, (3, 3, 3), n),
    "resnet32": lambda n: ResNet(_padded, _NARROW, (5, 5, 5), n),
    "resnet56": lambda n: ResNet(_padded, _NARROW, (9, 9, 9), n),
    "small_cnn": small_cnn,
    "wrn_16_1": lambda n: WideResNet(16, 1, n),
    "wrn_16_2": lambda n: WideResNet(16, 2, n),
    "wrn_28_10": lambda n: WideResNet(28, 10, n),
    "wrn_40_1": lambda n: WideResNet(40, 1, n),
    "wrn_40_2": lambda n: WideResNet(40, 2, n),
}
"""Maps the name of each network to a function that makes it from the number of classes."""
