"""Checks and inputs that a scan and a cleansing share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bdclean.data import PoisonDataModule
from bdclean.data.notices import say
from bdclean.engine.precision import InBf16, whole
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.modules.symptoms import LOOKED_AT, find_symptom, is_constant
from bdclean.networks import check_finite, check_gradient, folded, noise
from bdclean.reporting.parts import Example, Subject
from bdclean.scanning import ALPHA, SCANNED, Finding, format_p_value, is_significant
from bdclean.tasks.evaluation import EXAMPLES
from bdclean.training import batch_size, pieces


def look(trainer: Trainer, model: Classifier, datamodule: PoisonDataModule) -> Subject:
    """Run a network on some unlabeled images, and check its outputs.

    Returns:
        The network's description, with warnings if its normalisation looks wrong.

    Raises:
        InputError: If the network outputs nan or inf for some images, or the same logits for all.
    """
    if trainer.is_global_zero:
        datamodule.prepare_data()
    images = datamodule.unlabeled_examples(LOOKED_AT).to(trainer.device)
    network = whole(model).to(images.device)
    option = Given("model.arch") if model.origin is None else Given("ckpt", model.origin.path)
    logits = [check_finite(network, part, option) for part in pieces(images, batch_size(images))]
    if is_constant(torch.cat(logits), images):
        raise InputError(
            *option,
            f"the network is constant: it gives the same output for all of {len(images)} images, so there "
            f"is nothing to find or to cleanse; its weights, its normalisation ({Given('model.mean')}, "
            f"{Given('model.std')}) or the image size may be wrong",
        )
    symptom = find_symptom(torch.cat(logits))
    if symptom is not None:
        say(f"WARNING: {symptom}.")
    warnings = () if symptom is None else (symptom,)
    return Subject(dict(model.hparams), model.outputs.describe() or None, class_names(model, datamodule), warnings)


def class_names(model: Classifier, datamodule: PoisonDataModule) -> tuple[str, ...]:
    """Names of the classes, from the labelled images or else from the network."""
    return tuple(datamodule.class_names) or model.class_names


def check_trains(model: Classifier) -> None:
    """Check that a network has a gradient with respect to its images.

    Raises:
        InputError: If it has none.
    """
    check_gradient(whole(model).cpu(), noise(3, model.image_size))


def scanned_images(trainer: Trainer, datamodule: PoisonDataModule, wanted: bool = True) -> Tensor:
    """Images to scan with, (N, 3, H, W) in [0, 1]; a single black image if the detector uses none."""
    if not wanted:
        return torch.zeros(1, 3, datamodule.image_size, datamodule.image_size, device=trainer.device)
    if trainer.is_global_zero:
        datamodule.prepare_data()
    return datamodule.unlabeled_examples(SCANNED).to(trainer.device)


def scanned_network(trainer: Trainer, model: Classifier, images: Tensor) -> nn.Module:
    """The network for detectors: with folded batch norms, and in bf16 if training is in `bf16-mixed`."""
    # Fold on the CPU: the check that folding leaves the outputs unchanged is stricter than a GPU's rounding.
    network = folded(whole(model).cpu(), model.image_size).to(images.device)
    return InBf16(network) if trainer.precision == "bf16-mixed" else network


def recovered(findings: Sequence[Finding], images: Tensor, alpha: float = ALPHA) -> tuple[Example, ...]:
    """The recovered triggers of detectors, on some images.

    Args:
        findings: One finding of each detector.
        images: (N, 3, H, W) in [0, 1].
        alpha: Largest p-value over all detectors at which a finding is significant.
    """
    some = images[:EXAMPLES]
    return tuple(
        Example(
            f"{finding.detector}, class {finding.suspected} (p {format_p_value(finding.p_value)})",
            some,
            finding.trigger(some),
            is_significant(finding, len(findings), alpha),
        )
        for finding in findings
        if finding.trigger is not None
    )
