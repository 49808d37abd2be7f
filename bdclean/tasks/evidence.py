"""Gathering the evidence of a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bdclean.data import PoisonDataModule
from bdclean.data.attacker import Pairs
from bdclean.engine.precision import whole
from bdclean.engine.trainer import Trainer
from bdclean.evidence import Evidence, Looks, attribute, changed_layers, embed, spectrum
from bdclean.modules import Classifier
from bdclean.reporting.scans import Verdict
from bdclean.scanning import Budget, Finding, is_significant
from bdclean.tasks.looking import scanned_images
from bdclean.training import batch_size, pieces

CLEAN, TRIGGERED = 200, 100
"""Maximum numbers of clean and triggered images whose features are shown."""
SHOWN = 3
"""Number of images whose attribution is shown."""
CHANGED = 64
"""Maximum number of images that the activation of channels is measured on."""
PASSES = 2 * (CLEAN + 2 * TRIGGERED + 2 * CHANGED + 8 * SHOWN)
"""Approximate cost for two networks, in forward passes of one image."""


def gather(
    trainer: Trainer,
    models: Sequence[Classifier],
    datamodule: PoisonDataModule,
    verdict: Verdict,
    budget: Budget | None,
) -> Evidence | None:
    """Gather evidence about networks with the attack's trigger if it is known, else with a recovered one.

    Args:
        trainer: The Trainer.
        models: The suspect, and the cleansed network if there is one.
        datamodule: The images.
        verdict: The findings in the suspect.
        budget: The time limit; None without one.

    Returns:
        The evidence; None without a trigger, if it does not fit into the time limit.
    """
    started = time.perf_counter()
    names = ("suspect", "cleansed") if len(models) > 1 else ("network",)
    used = {name: whole(model).to(trainer.device) for name, model in zip(names, models, strict=True)}
    images = scanned_images(trainer, datamodule)
    found = strongest(verdict.findings, verdict.alpha)
    own = None if found is None else recovered_pairs(found, next(iter(used.values())), images)
    known = datamodule.attacker.examples(TRIGGERED)
    named = {"the attack's trigger": known, f"the trigger of {found.detector if found else ''}": own}
    pairs = {name: _on(one, trainer.device) for name, one in named.items() if one is not None and len(one.clean)}
    if not pairs or (budget is not None and not budget.allows("the evidence", PASSES)):
        return None
    trigger, chosen = next(iter(pairs.items()))
    some, stamped = chosen.clean[:SHOWN], chosen.triggered[:SHOWN]
    looks = {
        name: Looks(
            attribute(network, some),
            attribute(network, stamped),
            embed(network, images[:CLEAN], chosen.clean, chosen.triggered, chosen.targets),
        )
        for name, network in used.items()
    }
    layers = changed_layers(list(used.values()), chosen.clean[:CHANGED], chosen.triggered[:CHANGED])
    triggers = [spectrum(name, one.triggered - one.clean) for name, one in pairs.items()]
    return Evidence(
        trigger,
        some.cpu(),
        stamped.cpu(),
        looks,
        # The first module normalises the images.
        tuple(replace(one, name=one.name.removeprefix("1.")) for one in layers),
        (spectrum("clean images", chosen.clean), *triggers),
        round(time.perf_counter() - started, 1),
    )


def strongest(findings: Sequence[Finding], alpha: float) -> Finding | None:
    """The significant finding with a recovered trigger that has the smallest p-value; None without one."""
    usable = [one for one in findings if one.trigger is not None and is_significant(one, len(findings), alpha)]
    return min(usable, key=lambda one: one.p_value) if usable else None


@torch.no_grad()
def recovered_pairs(finding: Finding, network: nn.Module, images: Tensor) -> Pairs:
    """Images that a network does not predict as the suspected class, without and with the recovered trigger."""
    assert finding.trigger is not None
    predicted = torch.cat([network(part).argmax(1) for part in pieces(images, batch_size(images))])
    # From the end, because the clean images of the embedding are from the beginning.
    others = images[predicted != finding.suspected].flip(0)[:TRIGGERED]
    return Pairs(others, finding.trigger(others), predicted.new_full((len(others),), finding.suspected))


def _on(pairs: Pairs, device: torch.device) -> Pairs:
    return Pairs(*(one.to(device) for one in (pairs.clean, pairs.triggered, pairs.targets)))
