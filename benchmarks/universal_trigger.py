"""Measure whether students inherit a universal perturbation that their teacher resists: SCAR without its shadow.

    python benchmarks/universal_trigger.py cifar10.npz

Trains two clean networks, the second a student of the first, and makes a perturbation for both. A copy of the first
learns to resist it. Students with new weights are distilled from this copy on other images, with or without labels, as
in SCAR's paper. Prints ACC, ASR and RA of each on 2,000 test images.
"""

from __future__ import annotations

import argparse
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.surrogate import shuffled, train
from bdclean.attacks.universal import perturbed, universal, within_box
from bdclean.data.augment import random_crop_flip
from bdclean.data.images import Images, to_float
from bdclean.data.sources import open_source
from bdclean.metrics import attack_successes, correct, robust_successes
from bdclean.modules import AttackModule
from bdclean.training import kd_loss

SIDE, TARGET, TESTED = 32, 0, 2000


def new(seed: int) -> nn.Module:
    """A network with new weights."""
    torch.manual_seed(seed)
    return AttackModule("small_cnn", num_classes=10, image_size=SIDE).untrained()


def learn(
    network: nn.Module,
    images: Images,
    epochs: int,
    lr: float = 0.1,
    teacher: nn.Module | None = None,
    labels: bool = True,
    resist: Tensor | None = None,
) -> nn.Module:
    """Train a network with labels, a teacher or both, and optionally to resist a perturbation.

    Args:
        network: From images in [0, 1] to logits; trained in place.
        images: Training images, which are augmented.
        epochs: Number of epochs.
        lr: Highest learning rate.
        teacher: Teacher whose logits are distilled.
        labels: Whether to train with labels.
        resist: Perturbation under which the network should keep the labels.
    """

    def look_up(numbers: Tensor) -> Tensor:
        return to_float(random_crop_flip(images.batch(numbers), 3, True))

    def loss(batch: Tensor, numbers: Tensor) -> Tensor:
        logits, targets = network(batch), images.labels[numbers]
        losses = [F.cross_entropy(logits, targets)] if labels else []
        if teacher is not None:
            losses.append(kd_loss(logits, teacher(batch), 1.0))
        if resist is not None:
            losses.append(F.cross_entropy(network(perturbed(batch, resist)), targets))
        return torch.stack(losses).sum()

    return train(network, look_up, len(images), epochs, lr, loss)


@torch.no_grad()
def figures(network: nn.Module, test: Images, trigger: Tensor) -> str:
    """ACC, ASR and RA of a network, as text."""
    first = torch.arange(min(TESTED, len(test)))
    images, labels = to_float(test.batch(first)), test.labels[first]
    logits, targets = network(perturbed(images, trigger)), torch.full_like(labels, TARGET)
    others = targets != labels
    shares = (
        correct(network(images), labels),
        attack_successes(logits, targets, labels)[others],
        robust_successes(logits, targets, labels)[others],
    )
    acc, asr, ra = (100 * share.float().mean().item() for share in shares)
    return f"{acc:.1f} / {asr:.1f}, RA {ra:.1f}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="value of `--data.source`, with ten classes")
    parser.add_argument("--eps", type=float, nargs="+", default=[25.5])
    parser.add_argument("--images", type=int, default=30_000, help="attacker's images; the user has half as many")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    source, count, epochs = open_source(options.source), options.images, options.epochs
    every, test = (source.load(split, SIDE) for split in ("train", "test"))
    attacker, user = (every.subset(torch.arange(*part)) for part in ((0, count), (count, count + count // 2)))

    def look_up(numbers: Tensor) -> Tensor:
        return to_float(attacker.batch(numbers))

    first = learn(new(1), attacker, epochs)
    pair, other = [first, learn(new(2), attacker, epochs, teacher=first)], learn(new(3), attacker, epochs)
    for eps in options.eps:
        batches = shuffled(look_up, min(8000, count), 2, "Making the trigger")
        trigger = universal(pair, map(look_up, batches), TARGET, 2.55, within_box(eps))
        resistant = learn(copy.deepcopy(first).requires_grad_(True), attacker, 3, 0.03, resist=trigger)
        for name, network in (
            ("the first", first),
            ("its student", pair[1]),
            ("a third", other),
            ("the first, trained to resist", resistant),
            ("student of the resistant network", learn(new(7), user, epochs, teacher=resistant, labels=False)),
            ("student of the resistant network, with labels", learn(new(7), user, epochs, teacher=resistant)),
            ("student of the first", learn(new(7), user, epochs, teacher=first, labels=False)),
            ("without a teacher, with labels", learn(new(7), user, epochs)),
        ):
            print(f"{eps} grey levels, {name}: {figures(network, test, trigger)}", flush=True)


if __name__ == "__main__":
    main()
