"""Time to poison a batch, relative to a training step. Run: python benchmarks/stamping.py.

The time is that of a batch with the attack's own poisoning rate. Most attacks poison each image once before training;
attacks that poison in the training step take this time in every step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from bdclean import attacks
from bdclean.attacks.roles import CLEAN
from bdclean.data.poisoning import poison
from bdclean.data.shapes import draw_shapes
from bdclean.modules import AttackModule

BATCH = 128


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The shortest of several times, as other load on the machine only adds time."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def training_step(arch: str, pixels: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """One step of plain training on a batch."""
    module = AttackModule(arch).train()
    optimizer = torch.optim.SGD(module.network.parameters(), 0.01, momentum=0.9)
    images = pixels.permute(0, 3, 1, 2).float().div(255)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--archs", nargs="+", default=["small_cnn", "resnet20", "resnet18"])
    options = parser.parse_args()
    torch.manual_seed(0)
    pixels, labels = draw_shapes(2000, 0)
    batch = pixels[:BATCH]
    steps = {}
    for arch in options.archs:
        steps[arch] = milliseconds(training_step(arch, batch, labels[:BATCH]), options.repeats)
        print(f"training step of {arch}, {BATCH} images: {steps[arch]:.1f} ms", flush=True)
    print("\n| attack | images poisoned | ms |" + "".join(f" % of {arch} |" for arch in steps))
    print("|---|---|---|" + "---|" * len(steps))
    for name, kind in attacks.ATTACKS.items():
        attack = kind()
        if not attack.prepares:
            attack.build(pixels.shape[1])
        for option in ("surrogate_epochs", "mask_epochs", "encoder_epochs", "steps"):
            if hasattr(attack, option):
                setattr(attack, option, 1)
        network = AttackModule("small_cnn").untrained()
        attack.prepare(lambda chosen: pixels[chosen].permute(0, 3, 1, 2).float().div(255), labels, 10, network)
        roles = attack.choose(labels, 10)
        share = (roles != CLEAN).float().mean().item()
        # The average number in a batch, at least one.
        count = max(1, round(share * BATCH))
        chosen = (roles != CLEAN).nonzero().squeeze(1)[:count]
        cost = milliseconds(partial(poison, pixels[chosen], attack, roles[chosen], chosen), options.repeats)
        shares = "".join(f" {100 * cost / step:.2f} |" for step in steps.values())
        kind = ", in each step" if attack.poisons_each_step else ""
        print(f"| {name}{kind} | {count} | {cost:.2f} |{shares}", flush=True)


if __name__ == "__main__":
    main()
