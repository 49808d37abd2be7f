"""The usual training pipeline, as a reference: see throughput.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bdclean.cleansing.base import frozen
from bdclean.data.shapes import draw_shapes
from bdclean.modules import AttackModule
from bdclean.training import kd_loss

BATCH = 128
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Step:
    """The loss of a training step on normalised images: cross-entropy, or the paper's distillation at T = 1.

    Args:
        arch: Name of the network.
        verb: `fit` or `cleanse`.
        device: Device of the network.
        layout: Memory layout of weights and images.
    """

    def __init__(self, arch: str, verb: str, device: torch.device, layout: torch.memory_format) -> None:
        self.network = AttackModule(arch).network.to(device, memory_format=layout).train()
        self.teacher: nn.Module | None = frozen(self.network) if verb == "cleanse" else None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """From images (N, 3, H, W) and labels (N,) to the loss."""
        if self.teacher is None:
            return F.cross_entropy(self.network(images), labels)
        with torch.no_grad():
            teacher_logits = self.teacher(images)
        return kd_loss(self.network(images), teacher_logits, 1.0)


class PillowImages(Dataset[tuple[Tensor, int]]):
    """Single images, with Pillow and torchvision's transforms."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels.numpy()
        self.labels = labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def _epochs(connection: Connection, arch: str, verb: str, images: int, workers: int) -> None:
    """Run in a separate process: train an epoch for each `True` received, and send back its duration in seconds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = Step(arch, verb, device, torch.contiguous_format)
    optimizer = torch.optim.SGD(step.network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        PillowImages(*draw_shapes(images, 0)),
        BATCH,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # Set explicitly, as workers of a spawned process would otherwise be spawned, and import torch again.
        multiprocessing_context="fork" if workers else None,
    )
    while connection.recv():
        started, total = time.perf_counter(), 0.0
        for inputs, labels in loader:
            loss = step(inputs.to(device), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        connection.send(time.perf_counter() - started)


@contextmanager
def usual(arch: str, verb: str, images: int, workers: int) -> Iterator[Connection]:
    """A process that trains an epoch for each `True` that it receives, and sends back the duration in seconds.

    Unlike `bdclean`, it keeps the allocator's defaults.
    """
    parent, child = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_epochs, args=(child, arch, verb, images, workers))
    process.start()
    child.close()  # so that `recv` fails if the process ends
    try:
        yield parent
        parent.send(False)
        process.join()
    finally:
        process.kill()
