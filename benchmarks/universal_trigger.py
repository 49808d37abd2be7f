"""What students have of a universal perturbation that their teacher was taught to resist: SCAR without its shadow.

    python benchmarks/universal_trigger.py cifar10.npz

Two clean networks are trained, the second a student of the first, and a perturbation is made for both. A copy of the
first learns to resist it. Students with new weights distil from it on other images, by its answers alone or with labels
beside them, as those of SCAR's authors do; ACC, ASR and RA of each on 2,000 test images.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.distillation import kd_loss
from bdclean.modules import AttackModule

BATCH, TARGET = 128, 0


class Images:
    """Images and labels of a file, augmented by the batch."""

    def __init__(self, path: Path) -> None:
        data = np.load(path)
        self.pixels = torch.from_numpy(data["x_train"]).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(data["y_train"]).long()
        self.test = torch.from_numpy(data["x_test"][:2000]).permute(0, 3, 1, 2).float() / 255
        self.truth = torch.from_numpy(data["y_test"][:2000]).long()

    def augmented(self, numbers: Tensor) -> Tensor:
        """Half of them mirrored, all cropped alike."""
        images = self.pixels[numbers].float() / 255
        images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(3))
        row, column = torch.randint(0, 7, (2,)).tolist()
        return F.pad(images, (3, 3, 3, 3))[:, :, row : row + 32, column : column + 32]

    @torch.no_grad()
    def figures(self, network: nn.Module, perturbation: Tensor) -> str:
        """ACC / ASR, RA of a network."""
        network.eval()
        clean = network(self.test).argmax(1)
        triggered = network((self.test + perturbation).clamp(0, 1)).argmax(1)
        others = self.truth != TARGET
        shares = (clean == self.truth, (triggered == TARGET)[others], (triggered == self.truth)[others])
        acc, asr, ra = (100 * share.float().mean().item() for share in shares)
        return f"{acc:.1f} / {asr:.1f}, RA {ra:.1f}"


def batches(first: int, last: int, epochs: int) -> Iterator[Tensor]:
    """Numbers of images, in a new order each epoch."""
    for _ in range(epochs):
        yield from (part for part in (first + torch.randperm(last - first)).split(BATCH) if len(part) == BATCH)


def new(seed: int) -> nn.Module:
    """A network with new weights."""
    torch.manual_seed(seed)
    network: nn.Module = AttackModule("small_cnn", num_classes=10, image_size=32).untrained()
    return network


def train(
    network: nn.Module,
    images: Images,
    order: Iterator[Tensor],
    steps: int,
    lr: float,
    teacher: nn.Module | None = None,
    labels: bool = True,
    resist: Tensor | None = None,
) -> nn.Module:
    """Train a network: by labels, by a teacher or by both, and, where one is given, against a perturbation."""
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, cycle_momentum=False)
    network.train()
    for numbers in order:
        batch, truth = images.augmented(numbers), images.labels[numbers]
        answers = network(batch)
        losses = [F.cross_entropy(answers, truth)] if labels else []
        if teacher is not None:
            with torch.no_grad():
                told = teacher(batch)
            losses.append(kd_loss(answers, told, 1.0))
        if resist is not None:
            losses.append(F.cross_entropy(network((batch + resist).clamp(0, 1)), truth))
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        optimizer.step()
        schedule.step()
    return network.eval()


def perturbation_for(networks: list[nn.Module], images: Images, eps: float, count: int) -> Tensor:
    """A perturbation of at most `eps` grey levels that takes images to the target in all networks."""
    found = torch.zeros(3, 32, 32, requires_grad=True)
    optimizer = torch.optim.Adam([found], 2.55 / 255)
    for network in networks:
        network.requires_grad_(False)
    for numbers in batches(0, count, 2):
        triggered = (images.pixels[numbers].float() / 255 + found).clamp(0, 1)
        wanted = torch.full((len(numbers),), TARGET)
        loss = torch.stack([F.cross_entropy(network(triggered), wanted) for network in networks]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        found.data.clamp_(-eps / 255, eps / 255)
    return found.detach()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--eps", type=float, nargs="+", default=[25.5])
    parser.add_argument("--images", type=int, default=30_000, help="of the attacker; half as many more are the user's")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    images, count, epochs = Images(options.file), options.images, options.epochs
    user = (count, count + count // 2)
    steps, few = epochs * (count // BATCH), epochs * (count // 2 // BATCH)
    nothing = torch.zeros(3, 32, 32)

    first = train(new(1), images, batches(0, count, epochs), steps, 0.1)
    second = train(new(2), images, batches(0, count, epochs), steps, 0.1, first)
    other = train(new(3), images, batches(0, count, epochs), steps, 0.1)
    for name, network in (("first", first), ("its student", second), ("another", other)):
        print(f"{name}, clean: {images.figures(network, nothing)}", flush=True)
    for eps in options.eps:
        trigger = perturbation_for([first, second], images, eps, min(8000, count))
        for name, network in (("first", first), ("its student", second), ("another", other)):
            print(f"{eps} grey levels, {name}: {images.figures(network, trigger)}", flush=True)
        resistant = copy.deepcopy(first).requires_grad_(True)
        train(resistant, images, batches(0, count, 3), 3 * (count // BATCH), 0.03, resist=trigger)
        print(f"{eps} grey levels, the first, taught to resist: {images.figures(resistant, trigger)}", flush=True)
        for name, teacher, labels in (
            ("of the resistant one, its answers", resistant, False),
            ("of the resistant one, its answers and labels", resistant, True),
            ("of the first, its answers", first, False),
            ("of nobody, labels", None, True),
        ):
            student = train(new(7), images, batches(*user, epochs), few, 0.1, teacher, labels)
            print(f"{eps} grey levels, student {name}: {images.figures(student, trigger)}", flush=True)


if __name__ == "__main__":
    main()
