"""Networks that bdclean does not know, as in a user's own code."""

from typing import Any

import torch
from torch import Tensor, nn


class VGG(nn.Module):
    """The architecture of the suspects in ../shared/suspects, which only accepts images of 32 pixels."""

    def __init__(self, num_classes: int = 10, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, share in zip(widths, (0.3, 0.4, 0.4), strict=True):
            for _ in range(2):
                layers += [nn.Conv2d(before, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ELU()]
                before = width
            layers += [nn.MaxPool2d(2), nn.Dropout(share)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1] * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


class SmallVGG(VGG):
    """The same architecture with few channels, for tests without the files of weights."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes, (4, 8, 16))


class Pooled(nn.Module):
    """Accepts images of any size."""

    def __init__(self, classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, 2, 1)
        self.middle = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.middle(torch.relu(self.conv(images)))).mean((2, 3)))


class Shapeless(nn.Module):
    """Does not output logits."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.fc(images.mean((2, 3))).sum()
        return output, output


class Sorted(nn.Module):
    """Its head is not the last matrix by name, and it also has container layers."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.head = nn.Linear(8, num_classes)
        self.stem = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.wide = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.wide(torch.relu(self.stem(images)).mean((2, 3)))))


class Auxiliary(Pooled):
    """Outputs more than logits in training."""

    def forward(self, images: Tensor) -> Any:
        answer = super().forward(images)
        return (answer, answer) if self.training else answer
